//! What every request passes before it reaches its verb; one filter per file, called by [`crate::handler`] in order.

pub mod audit;
pub mod flow;
pub mod impersonation;
pub mod record;
pub mod request_info;
