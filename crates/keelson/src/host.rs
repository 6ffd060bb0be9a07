//! Facts of this machine that the commands need.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The address by which others reach this machine: that of the default route, or loopback without one. Nothing
/// is sent.
pub fn address() -> IpAddr {
    let toward = |to: &str| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Any address that is not local does; the kernel only looks up its route.
        socket.connect((to, 9))?;
        socket.local_addr().map(|a| a.ip())
    };
    toward("192.0.2.1").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The host's name as a node's name: lower case.
pub fn node_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Ends the process when standard input ends: that is how a component notices that `up` is gone, however it
/// went.
///
/// # Errors
/// When standard input cannot be watched.
pub async fn parent_gone() -> std::io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    // A file, a terminal or /dev/null is nobody's pipe: there is nobody to go.
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(stdin) else {
        return std::future::pending().await;
    };
    let mut buffer = [0u8; 64];
    while pipe.read(&mut buffer).await? > 0 {}
    Ok(())
}
