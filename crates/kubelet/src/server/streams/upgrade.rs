//! From a request to a connection with streams: which protocol, which version of it, and what the answer says.
//!
//! A connection of its own (HTTP/1.1) is upgraded; on the tunnel (HTTP/2) an extended CONNECT does the same, and the
//! API server says 101 with the headers of this answer. Upstream: kubelet's `pkg/cri/streaming`,
//! apimachinery's `httpstream`.

use apimachinery::codec::spdy::Headers;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use super::channels::{self, Codec};
use crate::server::{Body, Refusal, full, text};

/// What makes a WebSocket key an answer. Source: RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The protocol's name for bytes as they are.
const RAW: &str = "tcp";

/// What a request asks to become.
pub struct Asked {
    /// `SPDY/3.1` or `websocket`.
    protocol: String,
    /// On the tunnel.
    tunnelled: bool,
    on: OnUpgrade,
}

/// What is offered.
pub struct Offer<'a> {
    /// Versions on SPDY, the one for clients that name none last.
    pub spdy: &'a [&'a str],
    /// Versions on WebSocket: name, whether as text.
    pub websocket: &'a [(&'a str, bool)],
    /// The channels on WebSocket; without any there is one stream to the client.
    pub channels: Vec<Headers>,
}

/// What has been agreed upon.
pub struct Agreed {
    /// The version, empty if the client named none.
    pub version: String,
    /// Whether channels on WebSocket carry the streams.
    pub channels: bool,
    /// How the connection is read and written.
    pub codec: Codec,
    /// The answer.
    pub response: Response<Body>,
    /// The connection, once the answer is out.
    pub on: OnUpgrade,
}

impl Asked {
    /// What a request asks for, if it does.
    pub fn of<B>(request: &mut Request<B>) -> Option<Asked> {
        let on = hyper::upgrade::on(&mut *request);
        if let Some(protocol) = request.extensions().get::<hyper::ext::Protocol>() {
            return Some(Asked { protocol: protocol.as_str().to_owned(), tunnelled: true, on });
        }
        let words = |name| words(request.headers(), name).into_iter();
        words(header::CONNECTION).find(|word| word.eq_ignore_ascii_case("upgrade"))?;
        let protocol = words(header::UPGRADE).next()?;
        Some(Asked { protocol, tunnelled: false, on })
    }

    /// The connection of a request that asks for a plain one, which only the tunnel can.
    pub fn raw<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
        let plain = request.extensions().get::<hyper::ext::Protocol>().is_some_and(|p| p.as_str() == RAW);
        plain.then(|| hyper::upgrade::on(&mut *request))
    }

    /// Agrees with the client.
    ///
    /// # Errors
    /// The answer to a client that wants what is not offered.
    pub fn agree(self, headers: &HeaderMap, offer: Offer<'_>) -> Result<Agreed, Refusal> {
        let mut response = Response::new(full(""));
        let (version, channels, codec) = if self.protocol.eq_ignore_ascii_case("SPDY/3.1") {
            let version = spdy_version(headers, offer.spdy)?;
            if let (Ok(value), false) = (HeaderValue::from_str(&version), version.is_empty()) {
                response.headers_mut().insert(STREAM_PROTOCOL, value);
            }
            (version, false, channels::spdy())
        } else if self.protocol.eq_ignore_ascii_case("websocket") {
            websocket(headers, offer, &mut response)?
        } else {
            let why = format!("unable to upgrade: unsupported protocol {:?}", self.protocol);
            return Err(text(StatusCode::BAD_REQUEST, &why).into());
        };
        if !self.tunnelled {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            if let Ok(value) = HeaderValue::from_str(&self.protocol) {
                response.headers_mut().insert(header::UPGRADE, value);
            }
        }
        Ok(Agreed { version, channels, codec, response, on: self.on })
    }
}

/// The comma-separated words of all headers of a name.
fn words(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

/// The first of the client's versions that is offered.
fn spdy_version(headers: &HeaderMap, offered: &[&str]) -> Result<String, Refusal> {
    let wanted = words(headers, STREAM_PROTOCOL);
    if wanted.is_empty() {
        return Ok(String::new());
    }
    wanted.iter().find(|w| offered.contains(&w.as_str())).cloned().ok_or_else(|| {
        let mut answer = refused(&wanted, offered);
        for version in offered {
            if let Ok(value) = HeaderValue::from_str(version) {
                answer.headers_mut().append(ACCEPTED_PROTOCOLS, value);
            }
        }
        answer
    })
}

fn refused(wanted: &[String], offered: &[&str]) -> Refusal {
    let (wanted, offered) = (wanted.join(" "), offered.join(" "));
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{wanted}], server accepts [{offered}]"
    );
    text(StatusCode::FORBIDDEN, &why).into()
}

fn websocket(
    headers: &HeaderMap,
    offer: Offer<'_>,
    response: &mut Response<Body>,
) -> Result<(String, bool, Codec), Refusal> {
    let bad = |why: &str| Refusal::from(text(StatusCode::BAD_REQUEST, &format!("unable to upgrade: {why}")));
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("no Sec-WebSocket-Key"))?;
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(bad("Sec-WebSocket-Version is not 13"));
    }
    let wanted = words(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let found = wanted.iter().find_map(|w| offer.websocket.iter().find(|(name, _)| name == w));
    let (version, base64) = match found {
        Some((name, base64)) => ((*name).to_owned(), *base64),
        None if wanted.is_empty() => (String::new(), false),
        None => {
            let offered: Vec<&str> = offer.websocket.iter().map(|(name, _)| *name).collect();
            return Err(refused(&wanted, &offered));
        }
    };
    let out = response.headers_mut();
    if let (Ok(value), false) = (HeaderValue::from_str(&version), version.is_empty()) {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let accept = [key.as_bytes(), WEBSOCKET_GUID.as_bytes()].concat();
    let accept =
        BASE64.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &accept));
    out.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(accept).expect("base64 is plain text"));
    if version.starts_with("SPDY/") {
        return Ok((version, false, channels::tunnelled()));
    }
    if offer.channels.is_empty() {
        return Ok((version, false, channels::plain(base64)));
    }
    let closes = version == "v5.channel.k8s.io";
    Ok((version, true, channels::channels(offer.channels, base64, closes)))
}
