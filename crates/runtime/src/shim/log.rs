//! Container logs: CRI's format, and rotation.
//!
//! `2026-01-02T03:04:05.000000006Z stdout F text`: `P` instead of `F` says that the line goes on.
//! Upstream: the kubelet's `kuberuntime/logs` (reader) and `logs/container_log_manager.go` (names of rotated
//! files); containerd's `internal/cri/io/logger.go`. We differ on purpose: the shim rotates by itself, so that logs
//! stay bounded while no kubelet runs, and rotated files are not compressed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::protocol::LogRotation;

/// The longest piece of a line; longer ones are cut in several.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Which of a program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A log file and the lines not yet complete.
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: LogRotation,
    pending: [Vec<u8>; 2],
}

impl Log {
    /// Opens a log, appending to what is there.
    ///
    /// # Errors
    /// When the directory or file cannot be made.
    pub fn open(path: &Path, rotation: LogRotation) -> io::Result<Log> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { path: path.to_owned(), file, size, rotation, pending: Default::default() })
    }

    /// Takes what a program wrote.
    ///
    /// # Errors
    /// When the disk is full; the lines are lost then, as they would be in a pipe without a reader.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let pending = &mut self.pending[stream as usize];
        pending.extend_from_slice(bytes);
        let (mut out, mut done) = (Vec::new(), 0);
        loop {
            let rest = &pending[done..];
            let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    line(&mut out, stream, b'F', &window[..end]);
                    done += end + 1;
                }
                // One more byte than fits: it may be the end of the line.
                None if rest.len() > LINE_BYTES_MAX && rest[LINE_BYTES_MAX] == b'\n' => {
                    line(&mut out, stream, b'F', window);
                    done += LINE_BYTES_MAX + 1;
                }
                None if rest.len() > LINE_BYTES_MAX => {
                    line(&mut out, stream, b'P', window);
                    done += LINE_BYTES_MAX;
                }
                None => break,
            }
        }
        pending.drain(..done);
        self.append(&out)
    }

    /// Ends a stream: what is left of its last line stays a part of one, so that readers add no end to it.
    ///
    /// # Errors
    /// As [`Log::write`].
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending[stream as usize]);
        let mut out = Vec::new();
        if !rest.is_empty() {
            line(&mut out, stream, b'P', &rest);
        }
        self.append(&out)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.rotation.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let stamp = base::time::now().strftime("%Y%m%d-%H%M%S").to_string();
        let mut to = suffixed(&self.path, &stamp);
        let mut n = 0;
        while to.exists() {
            n += 1;
            to = suffixed(&self.path, &format!("{stamp}.{n:03}"));
        }
        fs::rename(&self.path, to)?;
        self.file = open(&self.path)?;
        self.size = 0;
        let rotated = rotated(&self.path)?;
        let keep = self.rotation.files_max.saturating_sub(1);
        for old in rotated.iter().take(rotated.len().saturating_sub(keep)) {
            fs::remove_file(old)?;
        }
        Ok(())
    }
}

fn line(out: &mut Vec<u8>, stream: Stream, tag: u8, text: &[u8]) {
    let stamp = base::time::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string();
    for part in [stamp.as_bytes(), b" ", stream.name().as_bytes(), b" ", &[tag], b" ", text, b"\n"] {
        out.extend_from_slice(part);
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o640).open(path)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// The rotated files of a log, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut out = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String, String)> {
        text.lines()
            .map(|l| {
                let mut parts = l.splitn(4, ' ');
                let stamp = parts.next().expect("a time");
                assert!(stamp.ends_with('Z') && stamp.len() == 30, "{stamp}");
                stamp.parse::<base::time::Timestamp>().expect("RFC 3339");
                let mut next = || parts.next().expect("four parts").to_owned();
                (next(), next(), next())
            })
            .collect()
    }

    #[test]
    fn lines_are_split_joined_and_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pod/0.log");
        let mut log = Log::open(&path, LogRotation::default()).expect("open");
        log.write(Stream::Stdout, b"one\ntw").expect("write");
        log.write(Stream::Stderr, b"err\n").expect("write");
        log.write(Stream::Stdout, b"o\n\n").expect("write");
        let exact = vec![b'x'; LINE_BYTES_MAX];
        log.write(Stream::Stdout, &exact).expect("write");
        log.write(Stream::Stdout, b"\n").expect("write");
        log.write(Stream::Stdout, &[&exact[..], b"rest"].concat()).expect("write");
        log.finish(Stream::Stdout).expect("finish");
        let text = fs::read_to_string(&path).expect("read");
        let got: Vec<_> =
            parsed(&text).into_iter().map(|(s, t, l)| format!("{s} {t} {}", l.replace("x", ""))).collect();
        assert_eq!(
            got,
            [
                "stdout F one",
                "stderr F err",
                "stdout F two",
                "stdout F ",
                "stdout F ",
                "stdout P ",
                "stdout P rest"
            ]
        );
    }

    #[test]
    fn rotation_bounds_what_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        let rotation = LogRotation { bytes_max: 200, files_max: 3 };
        let mut log = Log::open(&path, rotation).expect("open");
        for i in 0..40 {
            log.write(Stream::Stdout, format!("line {i}\n").as_bytes()).expect("write");
        }
        assert_eq!(rotated(&path).expect("list").len(), 2);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.len() <= 200 && text.ends_with("line 39\n"), "{text}");
    }
}
