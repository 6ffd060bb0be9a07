//! `common/storage/empty_dir.go`.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell, with_volumes};

fn volume(medium: &str) -> Value {
    json!({ "name": "a", "emptyDir": { "medium": medium } })
}

/// A file of this mode, written and read by this user; the directory and its file system.
fn file(space: &Space<'_>, medium: &str, user: u64, mode: &str) {
    let script = format!(
        "echo content > /v/a/file && chmod {mode} /v/a/file && ls -ln /v/a/file | cut -c1-10 && cat /v/a/file \
         && grep ' /v/a ' /proc/mounts | cut -d' ' -f3 && stat -c %A /v/a && id -u"
    );
    let mut spec = with_volumes(once(vec![shell("c", &script)]), &[volume(medium)]);
    spec["securityContext"] = json!({ "runAsUser": user });
    let said = space.output("p", spec);
    let lines: Vec<&str> = said.lines().collect();
    let letters = match mode {
        "0644" => "-rw-r--r--",
        "0666" => "-rw-rw-rw-",
        _ => "-rwxrwxrwx",
    };
    let user = user.to_string();
    assert_eq!([lines[0], lines[1], lines[3], lines[4]], [letters, "content", "drwxrwxrwx", &user], "{said}");
    assert_eq!(lines[2] == "tmpfs", medium == "Memory", "{said}");
}

/// What one container writes, the other reads.
fn shared(space: &Space<'_>) {
    let containers = vec![
        shell("main", "until [ -s /v/a/shared ]; do sleep 0.05; done; cat /v/a/shared"),
        shell("sub", "echo hello > /v/a/.new && mv /v/a/.new /v/a/shared; sleep 1"),
    ];
    assert_eq!(space.output("p", with_volumes(once(containers), &[volume("")])), "hello\n");
}

#[test]
fn empty_dirs() {
    let mut rows: Vec<Row<'_>> = vec![row("shared volumes", shared)];
    for medium in ["", "Memory"] {
        for user in [0, 1001] {
            for mode in ["0644", "0666", "0777"] {
                rows.push(row("file", move |space| file(space, medium, user, mode)));
            }
        }
    }
    carry_out(&rows);
}
