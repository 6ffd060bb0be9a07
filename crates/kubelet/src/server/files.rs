//! `/logs/…`: the files in the node's log directory, for those who may read them through the API server's proxy.
//!
//! Upstream: pkg/kubelet/server/server.go (`getLogs`), Go's `http.FileServer`. What a link leads to outside is not shown.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt as _;

use super::{Body, full, logs, text};

/// How much of a file is read at once.
const CHUNK: usize = 64 << 10;

/// What a path below the directory shows.
enum Shown {
    File(PathBuf),
    /// Its names, directories with a slash.
    Directory(Vec<String>),
}

/// Answers with a file, or with the names in a directory.
pub async fn serve(root: PathBuf, path: &str) -> Response<Body> {
    let path = logs::decode(path);
    let shown = base::task::blocking(move || look(&root, &path)).await;
    match shown {
        Ok(Shown::Directory(names)) => page(&names),
        Ok(Shown::File(path)) => match tokio::fs::File::open(path).await {
            Ok(file) => stream(file),
            Err(_) => missing(),
        },
        Err(_) => missing(),
    }
}

fn missing() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

fn look(root: &Path, path: &str) -> io::Result<Shown> {
    let root = root.canonicalize()?;
    let path = root.join(path.trim_start_matches('/')).canonicalize()?;
    if !path.starts_with(&root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    if path.is_file() {
        return Ok(Shown::File(path));
    }
    let mut names = Vec::new();
    for entry in path.read_dir()? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(Shown::Directory(names))
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
        let names = |path| match look(&root, path) {
            Ok(Shown::Directory(names)) => names,
            Ok(Shown::File(path)) => vec![path.file_name().expect("a name").to_string_lossy().into_owned()],
            Err(_) => Vec::new(),
        };
        assert_eq!(names("/"), ["a<b", "link", "pods/"]);
        assert_eq!(names("/a<b"), ["a<b"]);
        for path in ["/link", "/../secret", "/pods/../../secret", "//etc/passwd", "/none"] {
            assert_eq!(names(path), [""; 0], "{path}");
        }
    }
}
