//! A server for one test.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long a server may take to be ready, on a machine that is busy.
const READY_MAX: Duration = Duration::from_secs(180);

/// A control plane in a directory and on a port of its own; it ends with this.
pub struct Server {
    process: Child,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it says that it is ready.
    pub fn start() -> Result<Server> {
        let binary =
            std::env::var_os("KEELSON_BINARY").context("KEELSON_BINARY is not set: use cargo xtask test")?;
        let directory = tempfile::tempdir()?;
        let mut process = Command::new(binary)
            .arg("server")
            .arg("--data-dir")
            .arg(directory.path())
            .args(["--bind-address", &format!("127.0.0.1:{}", free_port()?)])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let server = Server { process, directory };
        let (tell, told) = mpsc::channel();
        // Reads on, too: what the server says later must not block it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.starts_with("Ready in")) {
                tell.send(line).ok();
            }
        });
        told.recv_timeout(READY_MAX).context("the server was not ready; its errors are above")?;
        Ok(server)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the server could not be ended: {error}");
        }
    }
}

/// A port that nobody else is given for a minute: the end of a connection holds it, which is no bar to a server that
/// asks for it by its number.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let _client = TcpStream::connect(at)?;
    // The side that ends first holds the port.
    drop(listener.accept()?);
    Ok(at.port())
}
