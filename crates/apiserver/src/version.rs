//! What this server says of its version.

use apimachinery::{Doc, doc};

/// The level of the API, as upstream numbers it, with our own release behind it. No `-`, which Helm would take
/// for a pre-release.
pub const GIT_VERSION: &str = concat!("v1.37.0+keelson.", env!("CARGO_PKG_VERSION"));

/// `/version`.
pub fn info() -> Doc {
    doc!({ "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION, "gitCommit": option_env!("KEELSON_GIT_COMMIT").unwrap_or("unknown"), "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": concat!("linux/", "amd64") })
}
