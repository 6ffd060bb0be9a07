//! apimachinery/discovery.go

use apimachinery::k;

use crate::cluster::play;

#[test]
fn every_group_prefers_one_of_its_versions() {
    play(|c| async move {
        let all = c.get("/apis").await.ok();
        assert!(!all.get("groups").is_empty());
        for group in all.get("groups").items() {
            let name = group.get(k::NAME).str();
            let own = c.get(&format!("/apis/{name}/")).await.ok();
            for group in [group, own.root()] {
                let preferred = group.get("preferredVersion");
                assert!(group.get(k::VERSIONS).items().any(|v| v.same(preferred)), "{name}");
                let (both, version) = (preferred.get("groupVersion").str(), preferred.get(k::VERSION).str());
                assert_eq!(both, format!("{name}/{version}"));
                let served = c.get(&format!("/apis/{both}")).await.ok();
                assert_eq!(served.get("groupVersion").str(), both);
            }
        }
    });
}
