//! Streams that leave the shim: attached containers' output, and sockets in the pod's network.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::protocol::{Descriptor, Failure};
use super::server::{Shim, Waiter};
use crate::{ContainerId, StreamOptions};

/// Somebody who listens to one output of a container. Holds at most what was read at once beyond the pipe's room.
pub struct Tap {
    /// The container.
    pub container: ContainerId,
    stream: usize,
    /// The end that is written.
    pub fd: OwnedFd,
    pending: Vec<u8>,
    ended: bool,
    broken: bool,
}

impl Tap {
    /// Whether it listens to this output.
    pub fn of(&self, container: &ContainerId, stream: usize) -> bool {
        self.stream == stream && self.container == *container && !self.ended
    }

    /// Whether something waits for room in the pipe.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether nothing will be written any more.
    pub fn is_done(&self) -> bool {
        self.broken || (self.ended && self.pending.is_empty())
    }

    /// Writes, or keeps what does not fit.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.write();
    }

    /// The container's output has ended.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Poll says something: there is room, or, where none was waited for, nobody reads any more.
    pub fn woken(&mut self) {
        self.broken |= self.pending.is_empty();
        self.write();
    }

    fn write(&mut self) {
        while !self.pending.is_empty() && !self.broken {
            match rustix::io::write(&self.fd, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => self.broken = true,
            }
        }
    }
}

impl Shim {
    /// Gives the wanted streams of a running container, output from now on.
    pub(super) fn attach(
        &mut self,
        id: &ContainerId,
        wants: StreamOptions,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        let other = |e: std::io::Error| Failure::Other(e.to_string());
        let record = self.state.containers.get(id).ok_or(Failure::NotFound)?;
        let Some(running) = self.running.get_mut(id) else {
            return Err(Failure::State(format!("{:?}", record.state).to_lowercase()));
        };
        let config = &record.spec.config;
        let mut all = Vec::new();
        if config.tty
            && let Some(master) = &running.outputs[0]
        {
            all.push((Descriptor::Terminal, master.try_clone().map_err(other)?));
        }
        if wants.stdin {
            // Who is given the only one ends the input by leaving.
            let input = match &running.stdin {
                Some(kept) if !config.stdin_once => Some(kept.try_clone().map_err(other)?),
                _ => running.stdin.take(),
            };
            all.extend(input.map(|fd| (Descriptor::Stdin, fd)));
        }
        for (stream, kind, wanted) in
            [(0, Descriptor::Stdout, wants.stdout), (1, Descriptor::Stderr, wants.stderr)]
        {
            if wanted && running.outputs[stream].is_some() {
                let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
                let (read, fd) = rustix::pipe::pipe_with(flags).map_err(|e| other(e.into()))?;
                let (pending, ended, broken) = Default::default();
                self.taps.push(Tap { container: id.clone(), stream, fd, pending, ended, broken });
                all.push((kind, read));
            }
        }
        self.give(waiter, all);
        Ok(())
    }

    /// Gives a socket of the pod's network: the shim lives in there, whoever connects does not.
    pub(super) fn socket(&mut self, v6: bool, waiter: Waiter) -> Result<(), Failure> {
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .map_err(|e| Failure::Other(format!("make a socket: {e}")))?;
        self.give(waiter, vec![(Descriptor::Socket, socket)]);
        Ok(())
    }
}
