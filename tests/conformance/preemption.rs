//! scheduling/preemption.go

use apimachinery::doc;

use crate::cluster::{int, play, text, with};

#[test]
fn priority_classes_can_be_worked_with() {
    play(|c| async move {
        let at = "/apis/scheduling.k8s.io/v1/priorityclasses";
        let made = [("p1", 1), ("p2", 2)];
        for (name, value) in made {
            c.post(at, &doc!({ "metadata": { "name": name }, "value": value })).await.ok();
        }
        let listed = c.names(at).await;
        for (name, value) in made {
            assert!(listed.contains(&name.to_owned()));
            let one = format!("{at}/{name}");
            let live = c.get(&one).await.ok();
            assert_eq!(int(&live, "value"), value);

            // What stays as it was made.
            let patch = doc!({ "value": value * 10 });
            c.patch(&one, "strategic-merge", &patch).await.fails(422);
            c.put(&one, &with(live.clone(), "value", value * 10)).await.fails(422);
            c.patch(&one, "strategic-merge", &doc!({ "preemptionPolicy": "Never" })).await.fails(422);
            assert_eq!(int(&c.get(&one).await.ok(), "value"), value);

            // What may change.
            let patch = doc!({ "description": "updated by patch" });
            c.patch(&one, "strategic-merge", &patch).await.ok();
            let patched = c.get(&one).await.ok();
            assert_eq!(text(&patched, "description"), "updated by patch");
            c.put(&one, &with(patched, "description", "updated by update")).await.ok();
            assert_eq!(text(&c.get(&one).await.ok(), "description"), "updated by update");
        }
    });
}
