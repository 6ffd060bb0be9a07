//! network/service_latency.go, in virtual time: the machines' delays are those of the simulation.

use apimachinery::doc;

use crate::cluster::{play, text};
use crate::rc::controller;

const ITERATIONS: usize = 100;

#[test]
fn endpoints_come_soon() {
    play(|c| async move {
        c.post(&c.at("/api/v1", "replicationcontrollers"), &controller("svc-latency", 1)).await.ok();
        let pods = c.runs("svc-latency", 1).await;
        let ip = pods.values().map(|pod| text(pod, "status.podIP")).next().expect("it runs");
        let mut taken = Vec::new();
        for i in 0..ITERATIONS {
            let name = format!("latency-svc-{i}");
            let service = doc!({ "metadata": { "name": name }, "spec": { "selector": { "name": "svc-latency" },
                "ports": [{ "port": 80, "protocol": "TCP" }] } });
            let began = base::time::instant();
            c.post(&c.at("/api/v1", "services"), &service).await.ok();
            let leads = |e: &apimachinery::Doc| {
                e.get("subsets").item(0).get("addresses").item(0).get("ip").str() == ip
            };
            c.until_one(&c.at("/api/v1", "endpoints"), &name, "the endpoint is there", leads).await;
            taken.push(base::time::instant().duration_since(began).as_secs_f64());
        }
        taken.sort_by(f64::total_cmp);
        let (half, nine_tenths, all) =
            (taken[ITERATIONS / 2], taken[ITERATIONS * 9 / 10], taken[ITERATIONS - 1]);
        assert!(half < 20.0 && nine_tenths < 50.0 && all < 50.0, "{half} s, {nine_tenths} s, {all} s");
    });
}
