//! Byte streams to daemons: sockets, TLS over TCP, and programs that carry bytes on their standard input and output.
//!
//! [`Helper`] is such a program, made of an address like `docker-container://NAME` or `ssh://HOST`; [`TlsOptions`] says
//! whom a TLS connection trusts and how it shows who it is. Nothing here speaks any protocol above bytes.
//!
//! The rule: an end that has a reason tells it. What a program wrote to its standard error, or what was wrong with a
//! certificate, is the error of the stream, never a bare end of file.

mod command;
mod helper;
mod host;
pub mod limits;
mod pipe;
mod tcp;
mod tls;
mod unix;

pub use command::CommandStream;
pub use helper::{Helper, Serves};
pub use host::{host_port, is_host};
pub use pipe::{named_pipe, pipe_name};
pub use tcp::tcp;
pub use tls::{LoadRoots, Pem, TlsOptions, TlsStream};
pub use unix::{is_unix, unix};
