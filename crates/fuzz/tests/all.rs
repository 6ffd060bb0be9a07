//! A few seeds of every target.

use fuzz::{TARGETS, play};

/// Plays what the list says for the target.
fn some(name: &str) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("in the list");
    let failures = play::seeds(target, 0, target.seeds, 1, |_, _| {});
    let told: Vec<String> =
        failures.iter().map(|f| format!("seed {}: {}\n{}", f.seed, f.why, f.input)).collect();
    assert!(told.is_empty(), "{name}: {} seeds failed\n{}", told.len(), told.join("\n"));
}

macro_rules! each {
    ($($test:ident $name:literal),* $(,)?) => {
        $(#[test] fn $test() { some($name); })*

        #[test]
        fn every_target_is_played() {
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

each! {
    json "json",
    yaml "yaml",
    protobuf "protobuf",
    schema "schema",
    json_patch "json-patch",
    merge_patch "merge-patch",
    strategic "strategic",
    selector "selector",
    quantity "quantity",
    frames "frames",
    requests "requests",
}
