//! `/logs/…`: the files in the node's log directory, for those who may read them through the API server's proxy.
//!
//! Upstream: pkg/kubelet/server/server.go (`getLogs`), Go's `http.FileServer`. What a link leads to outside is not shown.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;

use super::{Body, full, logs, text};

/// How much of a file is read at once.
const CHUNK: usize = 64 << 10;
/// Opening waits for nobody.
const NO_WAITING: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// What a path below the directory shows.
enum Shown {
    File(std::fs::File),
    /// Its names, directories with a slash.
    Directory(Vec<String>),
}

/// Answers with a file, or with the names in a directory.
pub async fn serve(root: PathBuf, path: &str) -> Response<Body> {
    let path = logs::decode(path);
    let shown = base::task::blocking(move || look(&root, &path)).await;
    match shown {
        Ok(Shown::Directory(names)) => page(&names),
        Ok(Shown::File(file)) => stream(tokio::fs::File::from_std(file)),
        Err(_) => missing(),
    }
}

fn missing() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

fn look(root: &Path, path: &str) -> io::Result<Shown> {
    let root = root.canonicalize()?;
    // Opened first, and then asked where it lies: a pod may write in there, and a name that was looked at may lead
    // elsewhere when it is opened. Without waiting, for a pipe would have it wait for ever.
    let path = root.join(path.trim_start_matches('/'));
    let file = std::fs::File::options().read(true).custom_flags(NO_WAITING).open(path)?;
    let opened = open_place(&file);
    if !opened.read_link()?.starts_with(&root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    if file.metadata()?.is_file() {
        return Ok(Shown::File(file));
    }
    let mut names = Vec::new();
    for entry in opened.read_dir()? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(Shown::Directory(names))
}

/// The name under which the kernel keeps an open file.
fn open_place(file: &std::fs::File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn page(names: &[String]) -> Response<Body> {
    let escaped = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let links = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name)));
    let mut answer = Response::new(full(format!("<pre>\n{}</pre>\n", links.collect::<String>())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}

fn stream(file: tokio::fs::File) -> Response<Body> {
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; CHUNK];
        let n = file.read(&mut piece).await?;
        piece.truncate(n);
        Ok::<_, io::Error>((n > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
    });
    let mut answer = Response::new(StreamBody::new(pieces).boxed());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("pods")).expect("directories");
        std::fs::write(root.join("a<b"), "x").expect("write");
        std::fs::write(dir.path().join("secret"), "x").expect("write");
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("a link");
        // A pipe that nobody writes is no file, and nobody waits for it.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("log/pods/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        let names = |path| match look(&root, path) {
            Ok(Shown::Directory(names)) => names,
            Ok(Shown::File(file)) => {
                let path = open_place(&file).read_link().expect("it is open");
                vec![path.file_name().expect("a name").to_string_lossy().into_owned()]
            }
            Err(_) => Vec::new(),
        };
        assert_eq!(names("/"), ["a<b", "link", "pods/"]);
        assert_eq!(names("/a<b"), ["a<b"]);
        for path in ["/link", "/../secret", "/pods/../../secret", "//etc/passwd", "/none", "/pods/pipe"] {
            assert_eq!(names(path), [""; 0], "{path}");
        }
    }
}
