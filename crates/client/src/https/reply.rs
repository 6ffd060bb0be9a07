//! An HTTP answer as a [`Reply`]: objects and lists cut out of the text, watches frame by frame as they are asked for.

use std::sync::Arc;

use apimachinery::Status;
use apimachinery::call::{
    BoxStream, Call, Raw, RawBody, Rendering, Reply, Target, TransportError, Verb, Watch, WatchEvent,
};
use apimachinery::codec::json;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;

use super::connect::broken;
use super::scan;

/// The longest frame of a watch: an object at its largest, with room. Longer ones end the watch.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What kind of answer a call gets when it succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// An object or a status.
    Object,
    /// A list.
    List,
    /// A watch.
    Watch,
    /// Whatever comes, as it comes.
    Raw,
}

impl Want {
    /// By verb and target.
    pub fn of(call: &Call) -> Want {
        match (&call.target, call.verb) {
            _ if call.accept.rendering != Rendering::Object => Want::Raw,
            (Target::Path(_), _) | (_, Verb::Connect) => Want::Raw,
            (Target::Resource(t), _) if t.subresource == "log" => Want::Raw,
            (_, Verb::List) => Want::List,
            (_, Verb::Watch) => Want::Watch,
            _ => Want::Object,
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// When the connection breaks or the answer is not what was wanted.
pub async fn read(response: Response<Incoming>, want: Want) -> Result<Reply, TransportError> {
    let code = response.status().as_u16();
    let warnings = warnings(&response);
    if code >= 400 {
        let body = whole(response).await?;
        return Ok(Reply::Status(status(code, &body)));
    }
    match want {
        Want::Raw => Ok(Reply::Raw(raw(code, response))),
        Want::Watch => Ok(Reply::Watch(watch(response))),
        Want::List => {
            let body = whole(response).await?;
            let list = scan::list(&body).ok_or(TransportError::Protocol("no list"))?;
            Ok(Reply::List(apimachinery::call::List { warnings, ..list }))
        }
        Want::Object => {
            let body = whole(response).await?;
            let kind = scan::fields(&body).and_then(|mut f| f.find(|(n, _)| *n == b"kind"));
            let stored = scan::stored(body.clone()).filter(|s| !s.name().is_empty());
            match (kind.map(|(_, at)| &body[at]), stored) {
                (Some(kind), Some(object)) if kind != b"\"Status\"" => {
                    Ok(Reply::Object { code, object: Arc::new(object), warnings })
                }
                // A Status, or an answer that is never stored (a review, a token).
                _ => {
                    let parsed = json::parse(body).map_err(|_| TransportError::Protocol("no JSON"))?;
                    Ok(Reply::Doc { code, doc: Box::new(parsed.doc), warnings })
                }
            }
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, TransportError> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|err| broken("reading the answer", err))
}

fn status(code: u16, body: &[u8]) -> Status {
    match json::parse(body) {
        Ok(parsed) if parsed.doc.get("kind").str() == "Status" => Status::from_doc(parsed.doc.root()),
        _ => {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            let made = match code {
                401 => Status::unauthorized(),
                404 => Status::unknown_path(),
                429 => Status::too_many_requests(text, 1),
                503 => Status::unavailable(text),
                _ => Status::internal(text),
            };
            Status { code, ..made }
        }
    }
}

fn raw(code: u16, response: Response<Incoming>) -> Raw {
    let text = |v: &http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
    let content_type = response.headers().get(http::header::CONTENT_TYPE).map(text).unwrap_or_default();
    let headers =
        response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = response.into_body().into_data_stream().map(|part| part.map_err(std::io::Error::other));
    Raw { code, content_type, headers, body: RawBody::Stream(Box::pin(body)) }
}

fn warnings(response: &Response<Incoming>) -> Vec<String> {
    let all = response.headers().get_all(http::header::WARNING).iter();
    // `299 - "text"`, with quotes and backslashes escaped.
    let text = |value: &http::HeaderValue| {
        let text =
            value.to_str().ok()?.strip_prefix("299 ")?.split_once('"')?.1.trim_end().strip_suffix('"')?;
        Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
    };
    all.filter_map(text).collect()
}

fn watch(response: Response<Incoming>) -> Watch {
    let parts = response.into_body().into_data_stream();
    let frames = Frames { parts, buffer: BytesMut::new(), searched: 0 };
    let events: BoxStream<Vec<WatchEvent>> = Box::pin(stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        let frame = frames.next().await?;
        let event = event(frame)
            .unwrap_or_else(|| WatchEvent::Error(Status::internal("a watch frame makes no sense")));
        let last = matches!(event, WatchEvent::Error(_));
        Some((vec![event], (!last).then_some(frames)))
    }));
    // Only a server writes bookmarks of its own, so a client needs no kind.
    Watch { api_version: String::new(), kind: String::new(), events }
}

struct Frames {
    parts: http_body_util::BodyDataStream<Incoming>,
    buffer: BytesMut,
    searched: usize,
}

impl Frames {
    /// The next line; none when the watch or its connection ends.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(n) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.searched + n + 1).freeze();
                self.searched = 0;
                if line.len() > 1 {
                    return Some(line);
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > FRAME_BYTES_MAX {
                return None;
            }
            self.buffer.extend_from_slice(&self.parts.next().await?.ok()?);
        }
    }
}

fn event(frame: Bytes) -> Option<WatchEvent> {
    let (mut kind, mut object) = (String::new(), 0..0);
    for (name, at) in scan::fields(&frame)? {
        match name {
            b"type" => kind = scan::string(&frame[at])?,
            b"object" => object = at,
            _ => {}
        }
    }
    if kind == "ERROR" {
        let status = json::parse(&frame[object]).ok()?.doc;
        return Some(WatchEvent::Error(Status::from_doc(status.root())));
    }
    if kind == "BOOKMARK" {
        let doc = json::parse(&frame[object]).ok()?.doc;
        let meta = doc.get("metadata");
        let initial = meta.get("annotations").get("k8s.io/initial-events-end").str() == "true";
        let revision = meta.get("resourceVersion").str().parse().ok()?;
        return Some(WatchEvent::Bookmark { revision, initial });
    }
    // A copy: many frames may share one buffer, and a cache keeps objects for long.
    let stored = Arc::new(scan::stored(Bytes::copy_from_slice(&frame[object]))?);
    match kind.as_str() {
        "ADDED" => Some(WatchEvent::Added(stored)),
        "MODIFIED" => Some(WatchEvent::Modified(stored)),
        "DELETED" => Some(WatchEvent::Deleted(stored)),
        _ => None,
    }
}
