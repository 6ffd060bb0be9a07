//! A connection to the shim: whole requests come out of it, answers and descriptors go into it, and nothing waits.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};

use super::protocol::{Request, lengths};
use super::spawn::poll_fd;
use crate::linux::descriptors;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// What may wait to be read by the other side before the connection is closed.
const UNREAD_BYTES_MAX: usize = 128 << 20;

/// A connection of an engine's.
pub struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    /// What is to be sent.
    pub output: Vec<u8>,
    /// They leave with the first byte of the output.
    pub descriptors: Vec<OwnedFd>,
    /// It follows the containers.
    pub follows: bool,
    /// It is to be forgotten.
    pub broken: bool,
}

impl Connection {
    /// Takes an accepted connection over.
    pub fn new(stream: UnixStream) -> Connection {
        let (input, output, descriptors) = Default::default();
        Connection { stream, input, output, descriptors, follows: false, broken: false }
    }

    /// What poll waits for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let wants = if self.output.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        poll_fd(&self.stream, wants)
    }

    /// Reads what there is, and gives the requests that are complete.
    pub fn receive(&mut self) -> Vec<Request> {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.broken = true;
                    break;
                }
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        let (mut requests, mut done) = (Vec::new(), 0);
        while let Some(head) = self.input[done..].first_chunk::<8>() {
            let Some((json, raw)) = lengths(*head) else {
                self.broken = true;
                break;
            };
            let Some(body) = self.input[done + 8..].get(..json + raw) else { break };
            match serde_json::from_slice(&body[..json]) {
                Ok(request) => requests.push(request),
                Err(e) => {
                    eprintln!("a request that is none: {e}");
                    self.broken = true;
                }
            }
            done += 8 + json + raw;
        }
        self.input.drain(..done);
        requests
    }

    /// Writes what the other side takes without waiting.
    pub fn send(&mut self) {
        let mut done = 0;
        while done < self.output.len() {
            let fds: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
            match descriptors::send(self.stream.as_fd(), &self.output[done..], &fds) {
                Ok(n) => {
                    done += n;
                    self.descriptors.clear();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        self.output.drain(..done);
        self.broken |= self.output.len() > UNREAD_BYTES_MAX;
    }
}
