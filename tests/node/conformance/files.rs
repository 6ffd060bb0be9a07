//! `common/storage`: ConfigMaps and Secrets as files, mounted as they are and as sources of projected volumes.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, condition, once, row, shell, with_volumes};

/// How an object becomes files.
#[derive(Clone, Copy)]
struct Form {
    secret: bool,
    projected: bool,
}

const FORMS: [Form; 4] = [
    Form { secret: false, projected: false },
    Form { secret: true, projected: false },
    Form { secret: false, projected: true },
    Form { secret: true, projected: true },
];

/// What is asked of a volume besides the object.
#[derive(Default)]
struct Ask {
    items: Option<Value>,
    mode: Option<u32>,
    optional: bool,
}

impl Form {
    fn resource(self) -> &'static str {
        if self.secret { "secrets" } else { "configmaps" }
    }

    fn create(self, space: &Space<'_>, name: &str, data: &Value) {
        // A Secret's data written as text.
        let key = if self.secret { "stringData" } else { "data" };
        space.create(self.resource(), name, json!({ key: data }));
    }

    fn change(self, space: &Space<'_>, name: &str, data: &Value) {
        let key = if self.secret { "stringData" } else { "data" };
        space.patch(self.resource(), name, json!({ key: data }));
    }

    fn volume(self, volume: &str, object: &str, ask: &Ask) -> Value {
        let name = if self.secret && !self.projected { "secretName" } else { "name" };
        let kind = if self.secret { "secret" } else { "configMap" };
        let mut source = json!({ name: object });
        if let Some(items) = &ask.items {
            source["items"] = items.clone();
        }
        if ask.optional {
            source["optional"] = true.into();
        }
        let mut out = if self.projected { json!({ "sources": [{ kind: source }] }) } else { source };
        if let Some(mode) = ask.mode {
            out["defaultMode"] = mode.into();
        }
        json!({ "name": volume, if self.projected { "projected" } else { kind }: out })
    }
}

const SHOW: &str = "stat -L -c '%a %n' /v/a/data-1; cat /v/a/data-1";

fn data() -> Value {
    json!({ "data-1": "value-1\n", "data-2": "value-2\n", "data-3": "value-3\n" })
}

fn mapped(mode: Option<u32>) -> Option<Value> {
    let mut item = json!({ "key": "data-2", "path": "path/to/data-2" });
    if let Some(mode) = mode {
        item["mode"] = mode.into();
    }
    Some(json!([item]))
}

/// Content, and modes: the default's, the volume's, the item's.
fn content_and_modes(form: Form, space: &Space<'_>) {
    form.create(space, "o", &data());
    let run = |pod: &str, ask: &Ask, user: Option<u64>, script: &str| {
        let mut spec = with_volumes(once(vec![shell("c", script)]), &[form.volume("a", "o", ask)]);
        if let Some(user) = user {
            spec["securityContext"] = json!({ "runAsUser": user });
        }
        space.output(pod, spec)
    };
    let show_mapped = "stat -L -c '%a %n' /v/a/path/to/data-2; cat /v/a/path/to/data-2; ls /v/a";
    let plain = "644 /v/a/data-1\nvalue-1\n";
    let mapped_is = |mode| format!("{mode} /v/a/path/to/data-2\nvalue-2\npath\n");
    assert_eq!(run("plain", &Ask::default(), None, SHOW), plain);
    assert_eq!(run("user", &Ask::default(), Some(1000), SHOW), plain);
    let mode = Ask { mode: Some(0o400), ..Ask::default() };
    assert_eq!(run("mode", &mode, None, SHOW), "400 /v/a/data-1\nvalue-1\n");
    let items = Ask { items: mapped(None), ..Ask::default() };
    assert_eq!(run("items", &items, None, show_mapped), mapped_is(644));
    assert_eq!(run("items-user", &items, Some(1000), show_mapped), mapped_is(644));
    let item_mode = Ask { items: mapped(Some(0o400)), ..Ask::default() };
    assert_eq!(run("item-mode", &item_mode, None, show_mapped), mapped_is(400));
}

/// As non-root, with a mode and the group that owns the files.
fn group_and_mode(form: Form, space: &Space<'_>) {
    form.create(space, "o", &data());
    let ask = Ask { mode: Some(0o440), ..Ask::default() };
    let script = "stat -L -c '%a %g %n' /v/a/data-1; cat /v/a/data-1; id -u";
    let mut spec = with_volumes(once(vec![shell("c", script)]), &[form.volume("a", "o", &ask)]);
    spec["securityContext"] = json!({ "runAsUser": 1000, "fsGroup": 1001 });
    assert_eq!(space.output("p", spec), "440 1001 /v/a/data-1\nvalue-1\n1000\n");
}

/// One object in two volumes of one pod.
fn in_two_volumes(form: Form, space: &Space<'_>) {
    form.create(space, "o", &data());
    let volumes = [form.volume("a", "o", &Ask::default()), form.volume("b", "o", &Ask::default())];
    assert_eq!(space.script("p", &volumes, "cat /v/a/data-1 /v/b/data-1"), "value-1\nvalue-1\n");
}

/// A change comes into the volume of a pod that runs.
fn changes(form: Form, space: &Space<'_>) {
    form.create(space, "o", &data());
    let script = "while true; do cat /v/a/data-1; sleep 0.1; done";
    let volumes = [form.volume("a", "o", &Ask::default())];
    space.pod("p", with_volumes(once(vec![shell("c", script)]), &volumes));
    space.log_until("p", "c", "value-1");
    form.change(space, "o", &json!({ "data-1": "value-2\n" }));
    space.log_until("p", "c", "value-2");
    space.delete("pods", "p", Some(0));
}

/// Three optional objects: one is deleted, one changed, one made later.
fn optional_changes(form: Form, space: &Space<'_>) {
    form.create(space, "deleted", &json!({ "data-1": "value-1\n" }));
    form.create(space, "changed", &json!({ "data-1": "value-1\n" }));
    let ask = Ask { optional: true, ..Ask::default() };
    let volumes = ["deleted", "changed", "made"].map(|name| form.volume(name, name, &ask));
    let show = |name: &str, file: &str| {
        shell(
            name,
            &format!("while true; do cat /v/{name}/{file} || echo {name} has none; sleep 0.1; done 2>&1"),
        )
    };
    let containers = vec![show("deleted", "data-1"), show("changed", "data-3"), show("made", "data-1")];
    space.pod("p", with_volumes(once(containers), &volumes));
    space.log_until("p", "deleted", "value-1");
    space.log_until("p", "changed", "changed has none");
    space.log_until("p", "made", "made has none");
    space.delete(form.resource(), "deleted", None);
    form.change(space, "changed", &json!({ "data-1": null, "data-3": "value-3\n" }));
    form.create(space, "made", &json!({ "data-1": "value-1\n" }));
    space.log_until("p", "made", "value-1");
    space.log_until("p", "changed", "value-3");
    space.log_until("p", "deleted", "deleted has none");
    space.delete("pods", "p", Some(0));
}

/// Text and bytes that are no text, in one ConfigMap.
fn binary_data(space: &Space<'_>) {
    let object = json!({ "data": { "text": "value-1" }, "binaryData": { "dump": "3q2+796tvu8=" } });
    space.create("configmaps", "o", object);
    let volume = FORMS[0].volume("a", "o", &Ask::default());
    let said = space.script("p", &[volume], "cat /v/a/text; echo; hexdump -ve '1/1 \"%02x\"' /v/a/dump");
    assert_eq!(said, "value-1\ndeadbeefdeadbeef");
}

/// A Secret of the same name elsewhere changes nothing.
fn the_name_elsewhere(space: &Space<'_>) {
    let other = space.cluster.space(&format!("{}-other", space.name));
    FORMS[1].create(&other, "o", &json!({ "data-1": "elsewhere\n" }));
    FORMS[1].create(space, "o", &data());
    assert_eq!(
        space.script("p", &[FORMS[1].volume("a", "o", &Ask::default())], "cat /v/a/data-1"),
        "value-1\n"
    );
}

/// A volume of everything that can be projected.
fn all_in_one(space: &Space<'_>) {
    FORMS[0].create(space, "c", &json!({ "configmap-data": "from a ConfigMap\n" }));
    FORMS[1].create(space, "s", &json!({ "secret-data": "from a Secret\n" }));
    let volume = json!({ "name": "a", "projected": { "sources": [
        { "secret": { "name": "s", "items": [{ "key": "secret-data", "path": "secret-data" }] } },
        { "configMap": { "name": "c", "items": [{ "key": "configmap-data", "path": "configmap-data" }] } },
        { "downwardAPI": { "items": [{ "path": "podname", "fieldRef": { "fieldPath": "metadata.name" } }] } },
    ] } });
    let said = space.script("p", &[volume], "cat /v/a/secret-data /v/a/configmap-data /v/a/podname");
    assert_eq!(said, "from a Secret\nfrom a ConfigMap\np");
}

/// Volumes that are made of others do not meet: a Secret and a ConfigMap in one pod.
fn wrapped_volumes_do_not_meet(space: &Space<'_>) {
    FORMS[1].create(space, "s", &data());
    FORMS[0].create(space, "c", &data());
    let volumes = [FORMS[1].volume("a", "s", &Ask::default()), FORMS[0].volume("b", "c", &Ask::default())];
    space.pod("p", with_volumes(once(vec![shell("c", "sleep 1000")]), &volumes));
    space.ready("p");
    space.delete("pods", "p", Some(0));
    space.wait_gone("pods", "p");
    space.delete("secrets", "s", None);
    space.delete("configmaps", "c", None);
}

/// Many ConfigMaps in the volumes of a few pods, again and again.
fn many_volumes_at_once(space: &Space<'_>) {
    let names: Vec<String> = (0..50).map(|n| format!("o{n}")).collect();
    for name in &names {
        FORMS[0].create(space, name, &json!({ "data-1": "value-1" }));
    }
    let volumes: Vec<Value> = names.iter().map(|name| FORMS[0].volume(name, name, &Ask::default())).collect();
    for round in 0..3 {
        let pods: Vec<String> = (0..5).map(|n| format!("p{round}-{n}")).collect();
        for pod in &pods {
            space.pod(pod, with_volumes(once(vec![shell("c", "sleep 1000")]), &volumes));
        }
        for pod in &pods {
            let pod = space.ready(pod);
            assert_eq!(condition(&pod, "ContainersReady"), Some("True"));
        }
        for pod in &pods {
            space.delete("pods", pod, Some(0));
        }
        pods.iter().for_each(|pod| space.wait_gone("pods", pod));
    }
}

#[test]
fn config_maps_and_secrets() {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for form in FORMS {
        rows.push(row("content and modes", move |space| content_and_modes(form, space)));
        rows.push(row("group and mode", move |space| group_and_mode(form, space)));
        rows.push(row("in two volumes", move |space| in_two_volumes(form, space)));
        rows.push(row("changes", move |space| changes(form, space)));
        rows.push(row("optional changes", move |space| optional_changes(form, space)));
    }
    rows.push(row("binary data", binary_data));
    rows.push(row("the name elsewhere", the_name_elsewhere));
    rows.push(row("all in one", all_in_one));
    rows.push(row("wrapped volumes do not meet", wrapped_volumes_do_not_meet));
    rows.push(row("many volumes at once", many_volumes_at_once));
    carry_out(&rows);
}
