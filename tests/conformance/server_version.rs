//! apimachinery/server_version.go

use crate::cluster::{play, text};

#[test]
fn the_version_is_of_whole_numbers() {
    play(|c| async move {
        let version = c.get("/version").await.ok();
        for part in ["major", "minor"] {
            let number = text(&version, part);
            assert!(!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()), "{part}: {number:?}");
        }
    });
}
