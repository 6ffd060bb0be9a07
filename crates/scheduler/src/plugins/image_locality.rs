//! ImageLocality: better is a node that has the pod's images already; an image on few nodes counts less, so that it does
//! not draw all its pods to them. Upstream: plugins/imagelocality.

use std::collections::BTreeMap;

use crate::cache::Snapshot;
use crate::framework::{CycleState, MAX_NODE_SCORE, Member, Pod, PreScore, Score};
use crate::info::{Node, NodeInfo};

const MB: i64 = 1024 * 1024;
/// Images of less than this are as good as absent.
const LEAST: i64 = 23 * MB;
/// More than this per container counts no more.
const MOST_PER_CONTAINER: i64 = 1000 * MB;

/// The plugin.
pub const MEMBER: Member =
    Member { pre_score: Some(&ImageLocality), score: Some(&ImageLocality), ..Member::new("ImageLocality") };

struct ImageLocality;

/// For each image of the pod the share of nodes that have it, by container.
struct Spread(Vec<(String, f64)>);

/// Nodes name images with a tag.
fn normalized(image: &str) -> String {
    match image.rfind(':') {
        Some(colon) if image.rfind('/').is_none_or(|slash| colon > slash) => image.to_owned(),
        _ => format!("{image}:latest"),
    }
}

impl PreScore for ImageLocality {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: Pod<'_>,
        _: &[(&NodeInfo, &Node)],
        nodes: Snapshot<'_>,
    ) -> bool {
        let images: Vec<String> = pod
            .spec()
            .init_containers()
            .iter()
            .chain(pod.spec().containers().iter())
            .map(|c| normalized(c.image()))
            .collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for image in &images {
            counts
                .entry(image)
                .or_insert_with(|| nodes.iter().filter(|(_, n)| n.images.contains_key(image)).count());
        }
        let all = nodes.len().max(1);
        let spread: Vec<(String, f64)> =
            images.iter().map(|i| (i.clone(), counts[i.as_str()] as f64 / all as f64)).collect();
        let any = spread.iter().any(|(_, share)| *share > 0.0);
        state.put(Spread(spread));
        any
    }
}

impl Score for ImageLocality {
    fn score(&self, state: &CycleState, _: Pod<'_>, _: &NodeInfo, node: &Node) -> i64 {
        let Some(Spread(images)) = state.get() else { return 0 };
        let sizes = images
            .iter()
            .map(|(image, share)| node.images.get(image).map_or(0, |size| (*size as f64 * share) as i64));
        let most = MOST_PER_CONTAINER * i64::try_from(images.len()).unwrap_or(1).max(1);
        let sum = sizes.sum::<i64>().clamp(LEAST, most);
        MAX_NODE_SCORE * (sum - LEAST) / (most - LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::scores;
    use apimachinery::doc;

    #[test]
    fn present_images_count_by_size_and_spread() {
        let node = |name: &str, images: &[(&str, i64)]| {
            let mut node = doc!({ "metadata": { "name": name }, "status": {} });
            for (image, mb) in images {
                let image = doc!({ "names": [*image], "sizeBytes": mb * MB });
                node.edit().at("status").list("images").push(image);
            }
            (node, vec![])
        };
        let pod = doc!({ "spec": { "containers": [{ "name": "c", "image": "r:5000/web" }] } });
        let nodes = [node("n1", &[("r:5000/web:latest", 1046)]), node("n2", &[("r:5000/web:v1", 900)])];
        assert_eq!(scores(&MEMBER, &pod, &nodes), [51, 0]);
        assert!(scores(&MEMBER, &pod, &nodes[1..]).is_empty());
    }
}
