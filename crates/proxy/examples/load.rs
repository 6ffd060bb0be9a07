//! How long many Services take: `cargo run --release -p proxy --example load -- 1000 [endpoints each]`. Needs root; runs in a
//! namespace of its own.

use std::time::Duration;

use base::time::instant;
use network::{create_netns, remove_netns};
use proxy::apply::Applier;
use proxy::model::{Endpoint, Local, ServicePort};
use proxy::render::render;

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>().expect("numbers"));
    let (services, each) = (args.next().unwrap_or(1000), args.next().unwrap_or(3));
    let dir = std::env::temp_dir().join(format!("proxy-load-{}", std::process::id()));
    create_netns(&dir).expect("needs root");
    run(services, each, &dir);
    remove_netns(&dir).expect("made above");
}

fn run(services: u32, each: u32, netns: &std::path::Path) {
    let local = Local { prefix: "keelson".into(), pod_cidrs: vec!["10.0.0.0/24".parse().expect("a range")] };
    let mut wanted: Vec<ServicePort> = (0..services).map(|n| service(n, each)).collect();
    let mut applier = Applier::open(Some(netns)).expect("sockets");
    let mut step = |name: &str, wanted: &[ServicePort]| {
        let start = instant();
        let rules = render(wanted, &local);
        let rendered = start.elapsed();
        let start = instant();
        let applied = applier.apply(rules).expect("the kernel takes it");
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        println!(
            "{name}: render {:.2} ms, apply {:.2} ms, {} messages, {} bytes",
            ms(rendered),
            ms(start.elapsed()),
            applied.messages,
            applied.bytes
        );
    };
    step("all", &wanted);
    wanted[services as usize / 2].endpoints.pop();
    step("one endpoint fewer", &wanted);
    wanted.push(service(services, each));
    step("one Service more", &wanted);
    step("nothing", &wanted);
}

fn service(n: u32, each: u32) -> ServicePort {
    let [_, a, b, c] = n.to_be_bytes();
    let endpoint = |e: u32| Endpoint {
        address: [10, b, c, 2 + e as u8].into(),
        port: 8080,
        local: e == 0,
        terminating: false,
    };
    ServicePort {
        cluster_ips: vec![[10, 96 + a, b, c].into()],
        port: 80,
        endpoints: (0..each).map(endpoint).collect(),
        ..ServicePort::default()
    }
}
