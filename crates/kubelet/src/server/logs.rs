//! Containers' logs, in CRI's format (`<time> <stream> <F|P> <text>`), whole, from their end, or as they grow.
//!
//! Upstream: staging/src/k8s.io/cri-client/pkg/logs, docs of CRI's log format.

use std::io::{self, SeekFrom};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use apimachinery::gotime;
use base::hash::Map;
use base::time::Timestamp;
use bytes::Bytes;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{Notify, mpsc, watch};

use crate::worker::{Phase, State};

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Goes on as the log grows, until the container ends.
    pub follow: bool,
    /// The run before the last.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many lines of the end.
    pub tail_lines: Option<usize>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Not more bytes than this.
    pub limit_bytes: Option<usize>,
    /// `stdout` or `stderr`; both if none.
    pub stream: Option<&'static str>,
}

impl Options {
    /// From a request's query.
    ///
    /// # Errors
    /// A message that names the parameter.
    pub fn parse(query: &str) -> Result<Options, String> {
        let mut out = Options::default();
        for (name, value) in
            query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")))
        {
            let value = decode(value);
            let bad = || format!("invalid value {value:?} of parameter {name}");
            let number = || value.parse::<usize>().map_err(|_| bad());
            let truth = || match value.as_str() {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(bad()),
            };
            match name {
                "follow" => out.follow = truth()?,
                "previous" => out.previous = truth()?,
                "timestamps" => out.timestamps = truth()?,
                "tailLines" => out.tail_lines = Some(number()?),
                "limitBytes" => out.limit_bytes = Some(number()?),
                "sinceSeconds" => out.since = Some(base::time::now() - Duration::from_secs(number()? as u64)),
                "sinceTime" => out.since = Some(gotime::parse(&value).map_err(|_| bad())?),
                "stream" => {
                    out.stream = match value.as_str() {
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        "" | "All" => None,
                        _ => return Err(bad()),
                    }
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// Percent-encoding.
pub(super) fn decode(text: &str) -> String {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut i = 0;
    while i < bytes.len() {
        let hex =
            bytes.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One line of a log file.
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    /// More of the same line follows.
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or(b"");
    let word = |bytes| std::str::from_utf8(bytes).ok();
    Some(Line {
        time: word(time)?,
        stream: word(stream)?,
        partial: tag.split(|b| *b == b':').next() == Some(b"P"),
        text,
    })
}

/// Turns a log file's bytes into what the reader wants.
struct Filter {
    options: Options,
    rest: Vec<u8>,
    sent: usize,
    line_begins: bool,
}

impl Filter {
    fn new(options: Options) -> Filter {
        Filter { options, rest: Vec::new(), sent: 0, line_begins: true }
    }

    fn full(&self) -> bool {
        self.options.limit_bytes.is_some_and(|limit| self.sent >= limit)
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let taken = std::mem::take(&mut self.rest);
        let whole = taken.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut out = Vec::new();
        for line in taken[..whole].split_inclusive(|b| *b == b'\n') {
            if let Some(line) = parse(&line[..line.len() - 1]) {
                self.line(&line, &mut out);
            }
        }
        self.rest = taken[whole..].to_vec();
        if let Some(limit) = self.options.limit_bytes {
            out.truncate(limit - self.sent.min(limit));
        }
        self.sent += out.len();
        out
    }

    fn line(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
            return;
        }
        if let Some(since) = self.options.since
            && gotime::parse(line.time).is_ok_and(|at| at < since)
        {
            return;
        }
        if self.options.timestamps && self.line_begins {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        self.line_begins = !line.partial;
        if self.line_begins {
            out.push(b'\n');
        }
    }
}

/// The last lines of a piece of a log, as text: at most so many lines and bytes.
pub fn tail_text(piece: &[u8], lines: usize, bytes: usize) -> String {
    // The piece may begin within a line.
    let from = if parse(piece).is_some_and(|l| gotime::parse(l.time).is_ok()) {
        0
    } else {
        piece.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1)
    };
    let mut text = Filter::new(Options::default()).feed(&piece[from..]);
    let begins: Vec<usize> = text
        .split_inclusive(|b| *b == b'\n')
        .scan(0, |at, l| {
            let begin = *at;
            *at += l.len();
            Some(begin)
        })
        .collect();
    let by_lines = begins.len().checked_sub(lines).map_or(0, |n| begins[n]);
    let from = by_lines.max(text.len().saturating_sub(bytes));
    String::from_utf8_lossy(&text.split_off(from)).into_owned()
}

/// Where the last `lines` lines of a file begin.
async fn tail_start(file: &mut File, lines: usize) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(size);
    }
    let (mut at, mut left) = (size, lines + 1);
    let mut buffer = vec![0; CHUNK];
    while at > 0 {
        let n = at.min(CHUNK as u64);
        file.seek(SeekFrom::Start(at - n)).await?;
        let chunk = &mut buffer[..usize::try_from(n).unwrap_or(CHUNK)];
        file.read_exact(chunk).await?;
        for (i, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            left -= 1;
            if left == 0 {
                return Ok(at - n + i as u64 + 1);
            }
        }
        at -= n;
    }
    Ok(0)
}

/// Sends a log until its end, or while it is followed until the container's.
pub async fn send(
    path: PathBuf,
    options: Options,
    container: String,
    attempt: u32,
    mut view: watch::Receiver<Arc<State>>,
    changes: Changes,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    // Watched before the first read, so that no change falls between.
    let watched = if options.follow { changes.watch(&path).ok() } else { None };
    let follow = options.follow;
    let tail = options.tail_lines;
    let mut filter = Filter::new(options);
    let mut file = match File::open(&path).await {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return,
        Err(err) => return drop(out.send(Err(err)).await),
    };
    let from = match tail {
        Some(lines) => tail_start(&mut file, lines).await,
        None => Ok(0),
    };
    if let Ok(from) = from
        && let Err(err) = file.seek(SeekFrom::Start(from)).await
    {
        return drop(out.send(Err(err)).await);
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        let running = runs(&view.borrow_and_update(), &container, attempt);
        loop {
            let n = match file.read(&mut buffer).await {
                Ok(0) => break,
                Ok(n) => n,
                Err(err) => return drop(out.send(Err(err)).await),
            };
            let piece = filter.feed(&buffer[..n]);
            if !piece.is_empty() && out.send(Ok(piece.into())).await.is_err() {
                return;
            }
            if filter.full() {
                return;
            }
        }
        let Some(watched) = watched.as_ref().filter(|_| follow && running) else { return };
        base::select! {
            () = watched.changed() => {}
            changed = view.changed() => if changed.is_err() { return },
            () = out.closed() => return,
        }
        // A rotated log goes on in a new file of the same name, once the old one is read to its end.
        if moved(&file, &path).await {
            while let Ok(n @ 1..) = file.read(&mut buffer).await {
                let piece = filter.feed(&buffer[..n]);
                if !piece.is_empty() && out.send(Ok(piece.into())).await.is_err() {
                    return;
                }
            }
            if let Ok(next) = File::open(&path).await {
                file = next;
            }
        }
    }
}

async fn moved(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(there)) => open.ino() != there.ino(),
        _ => false,
    }
}

fn runs(state: &State, container: &str, attempt: u32) -> bool {
    let is = |c: &crate::worker::Container| {
        c.name == container && c.attempt == attempt && matches!(c.phase, Phase::Running { .. })
    };
    state.containers.iter().any(is)
}

/// Tells when log directories change: one inotify instance for all of them, since a user has few.
#[derive(Clone, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    descriptor: OnceLock<Arc<AsyncFd<rustix::fd::OwnedFd>>>,
    /// By inotify's own number.
    watched: Mutex<Map<i32, Directory>>,
}

#[derive(Default)]
struct Directory {
    users: usize,
    notify: Arc<Notify>,
}

/// One directory's changes, until dropped.
pub struct Watched {
    id: i32,
    notify: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Watched {
    async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Changes {
    /// Watches the directory of a log.
    ///
    /// # Errors
    /// The operating system's, such as no inotify instance left.
    pub fn watch(&self, log: &Path) -> io::Result<Watched> {
        let dir = log.parent().unwrap_or(log);
        let descriptor = self.descriptor()?;
        let mut watched = self.0.watched.lock().expect("nobody panics holding it");
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE;
        let id = inotify::add_watch(descriptor.get_ref(), dir, flags)?;
        let entry = watched.entry(id).or_default();
        entry.users += 1;
        Ok(Watched { id, notify: entry.notify.clone(), shared: self.0.clone() })
    }

    #[allow(unsafe_code)]
    fn descriptor(&self) -> io::Result<Arc<AsyncFd<rustix::fd::OwnedFd>>> {
        if let Some(found) = self.0.descriptor.get() {
            return Ok(found.clone());
        }
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        // SAFETY: an owned descriptor names the same open file for as long as it lives, and it moves in here.
        let made = Arc::new(unsafe { AsyncFd::register(inotify::init(flags)?)? });
        if self.0.descriptor.set(made.clone()).is_ok() {
            let (shared, descriptor) = (Arc::downgrade(&self.0), made.clone());
            base::task::spawn(async move {
                while let Ok(mut ready) = descriptor.readable().await {
                    let Some(shared) = shared.upgrade() else { return };
                    shared.drain(&descriptor);
                    ready.clear_ready();
                }
            })
            .detach();
        }
        Ok(self.0.descriptor.get().expect("set just now").clone())
    }
}

impl Shared {
    fn drain(&self, descriptor: &AsyncFd<rustix::fd::OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(descriptor.get_ref(), &mut space);
        while let Ok(event) = reader.next() {
            let watched = self.watched.lock().expect("nobody panics holding it");
            if let Some(Directory { notify, .. }) = watched.get(&event.wd()) {
                // One permit is kept for those that are about to wait, and all that wait are woken.
                notify.notify_waiters();
                notify.notify_one();
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watched = self.shared.watched.lock().expect("nobody panics holding it");
        let Some(entry) = watched.get_mut(&self.id) else { return };
        entry.users -= 1;
        if entry.users == 0 {
            watched.remove(&self.id);
            if let Some(descriptor) = self.shared.descriptor.get() {
                // A directory that is gone has taken its watch along: that is no error.
                inotify::remove_watch(descriptor.get_ref(), self.id).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    const LOG: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n\
                       2026-01-01T00:00:03Z stdout P thr\n2026-01-01T00:00:04Z stdout F ee\n";

    fn filtered(query: &str) -> String {
        let mut filter = Filter::new(Options::parse(query).unwrap());
        let mut out = Vec::new();
        // In pieces that cut lines.
        LOG.as_bytes().chunks(7).for_each(|c| out.extend(filter.feed(c)));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn filters() {
        for (query, want) in [
            ("", "one\ntwo\nthree\n"),
            ("stream=Stderr", "two\n"),
            ("sinceTime=2026-01-01T00:00:02Z", "two\nthree\n"),
            (
                "timestamps=true&sinceTime=2026-01-01T00%3A00%3A02Z",
                "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n",
            ),
            ("limitBytes=5", "one\nt"),
        ] {
            assert_eq!(filtered(query), want, "{query}");
        }
        assert!(Options::parse("tailLines=x").unwrap_err().contains("tailLines"));
        assert_eq!(tail_text(LOG.as_bytes(), 2, 100), "two\nthree\n");
        assert_eq!(tail_text(&LOG.as_bytes()[5..], 9, 4), "ree\n");
    }

    #[tokio::test]
    async fn followed_until_the_container_ends() {
        let dir = std::env::temp_dir().join(format!("kubelet-logs-{}", base::rand::uuid()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let pod = doc!({ "spec": { "containers": [{ "name": "a" }] } });
        let mut state = State::new(Arc::new(pod), base::time::now());
        state.containers[0].phase = Phase::Running {
            id: "c".into(),
            image_ref: String::new(),
            since: base::time::now(),
            post_start: false,
            stopping: None,
        };
        let (views, view) = watch::channel(Arc::new(state.clone()));
        let (sender, mut pieces) = mpsc::channel(4);
        let options = Options { follow: true, tail_lines: Some(1), ..Options::default() };
        let _task =
            base::task::spawn(send(path.clone(), options, "a".into(), 0, view, Changes::default(), sender));
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "ee\n");
        let append = |text: &str| {
            use std::io::Write;
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("2026-01-01T00:00:05Z stdout F four\n");
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "four\n");
        append("2026-01-01T00:00:06Z stdout F five\n");
        let exit = crate::worker::Exit {
            id: "c".into(),
            image_ref: String::new(),
            code: 0,
            reason: String::new(),
            message: String::new(),
            started_at: None,
            finished_at: base::time::now(),
        };
        state.containers[0].phase = Phase::Exited(exit);
        views.send_replace(Arc::new(state));
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "five\n");
        assert!(pieces.recv().await.is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
