//! Connections to pods' ports.
//!
//! Upstream: pkg/kubelet/server/server.go (`getPortForward`), staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use apimachinery::codec::spdy::Headers;
use base::task::{self, Task};
use bytes::BytesMut;
use runtime::{Runtime, SandboxId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::upgrade::Offer;
use super::{Connection, PIECE_BYTES, STREAMS_MAX, Stream};
use crate::server::logs::decode;

const SPDY: &[&str] = &["portforward.k8s.io"];
const WEBSOCKET: &[(&str, bool)] = &[
    ("SPDY/3.1+portforward.k8s.io", false),
    ("v4.channel.k8s.io", false),
    ("v4.base64.channel.k8s.io", true),
];

/// Where connections go.
#[derive(Clone)]
pub struct Target {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The pod's sandbox.
    pub sandbox: SandboxId,
    /// The pod, for messages.
    pub pod: String,
    /// Its UID, for messages.
    pub uid: String,
}

/// The ports that a query names; channels on WebSocket need them.
///
/// # Errors
/// Upstream's words.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    let values =
        query.split('&').filter_map(|p| p.split_once('=')).filter(|(n, _)| matches!(*n, "port" | "ports"));
    let mut out = Vec::new();
    for (_, value) in values {
        for port in decode(value).split(',') {
            match port.parse::<u16>() {
                Ok(port) if port > 0 => out.push(port),
                Ok(_) => return Err(format!("port {port:?} must be > 0")),
                Err(_) => return Err(format!("unable to parse {port:?} as a port")),
            }
        }
    }
    Ok(out)
}

/// What a client is offered.
pub fn offer(ports: &[u16]) -> Offer<'static> {
    let channel = |kind: &str, i: usize, port: u16| -> Headers {
        let all = [("streamtype", kind.to_owned()), ("port", port.to_string()), ("requestid", i.to_string())];
        all.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    let channels =
        ports.iter().enumerate().flat_map(|(i, p)| [channel("data", i, *p), channel("error", i, *p)]);
    Offer { spdy: SPDY, websocket: WEBSOCKET, channels: channels.collect() }
}

/// Serves a connection until the client is gone. `announce`: each stream begins with its port.
pub async fn serve(target: Target, mut connection: Connection, announce: bool) {
    let mut halves: BTreeMap<String, Stream> = BTreeMap::new();
    let mut running: Vec<Task<()>> = Vec::new();
    while let Some(stream) = connection.streams.recv().await {
        running.retain(|t| !t.is_finished());
        let data = stream.header("streamtype") == "data";
        let request = match stream.header("requestid") {
            // Old clients open the error's stream just before the data's.
            "" => if data { stream.id.saturating_sub(2) } else { stream.id }.to_string(),
            given => given.to_owned(),
        };
        match halves.remove(&request) {
            Some(other) if (other.header("streamtype") == "data") != data => {
                let (data, error) = if data { (stream, other) } else { (other, stream) };
                running.push(task::spawn(forward(target.clone(), data, error, announce)));
            }
            _ if halves.len() >= STREAMS_MAX => return,
            _ => drop(halves.insert(request, stream)),
        }
    }
}

async fn forward(target: Target, mut data: Stream, error: Stream, announce: bool) {
    let Ok(port) = data.header("port").parse::<u16>() else {
        let why = format!("invalid port {:?}", data.header("port"));
        error.output.send(why).await;
        data.output.end().await;
        return error.output.end().await;
    };
    if announce {
        for output in [&data.output, &error.output] {
            output.send(port.to_le_bytes().to_vec()).await;
        }
    }
    let both: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    match target.runtime.connect(&target.sandbox, both.to_vec()).await {
        Ok(stream) => {
            let mut reset = std::mem::replace(&mut data.reset, tokio::sync::oneshot::channel().1);
            base::select! {
                () = pump(stream, &mut data) => {}
                // The other side wants no more: what the pod still says goes nowhere.
                Ok(()) = &mut reset => {}
            }
        }
        Err(err) => {
            let (pod, uid) = (&target.pod, &target.uid);
            let why = format!("error forwarding port {port} to pod {pod}, uid {uid}: {err}");
            error.output.send(why).await;
        }
    }
    data.output.end().await;
    error.output.end().await;
}

/// Carries bytes both ways until the pod has said all.
async fn pump(stream: TcpStream, data: &mut Stream) {
    let (mut from, mut to) = stream.into_split();
    let Stream { input, output, .. } = data;
    let sending = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // A pod that has gone needs no end.
        drop(to.shutdown().await);
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) if output.send(buffer.split().freeze()).await => {}
                Ok(_) => return,
            }
        }
    };
    base::select! {
        () = receiving => {}
        () = sending => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        assert_eq!(ports("port=80,8080&x=1&ports=9"), Ok(vec![80, 8080, 9]));
        assert_eq!(ports("port=0").unwrap_err(), "port \"0\" must be > 0");
        assert_eq!(ports("port=http").unwrap_err(), "unable to parse \"http\" as a port");
        assert_eq!(offer(&[80, 81]).channels[3][1].1, "81");
    }
}
