//! Test support: tree fixtures, snapshots and their comparison, a scripted fake daemon, one conformance suite for any
//! [`ImageBuilder`](bk_build::ImageBuilder), and handles on live daemons.
//!
//! * [`fixture`] makes directory trees of every kind of file; [`snapshot`] reads a tree or a tar stream back;
//!   [`compare`] says how two of them differ.
//! * [`fake`] is a daemon in this process that behaves like BuildKit where a client can see it, and misbehaves on
//!   demand; [`garbage`] are endpoints that are no daemon at all.
//! * [`live`] finds real daemons through the environment; [`proxy`], [`front`] and [`endpoint`] stand between a client and a
//!   daemon.
//! * [`web`] serves files and Git repositories to them; [`token`] is a registry that wants tokens, and who gives them; [`ssh`]
//!   has agents and servers; [`oci`] reads archives of images;
//!   [`tls`] is a front that speaks TLS.
//! * [`conformance`] runs the same builds on all of them and prints a table.
//!
//! This crate never ships: it is a development dependency only, and may print.

mod apart;
pub mod compare;
pub mod conformance;
pub mod endpoint;
pub mod events;
pub mod fake;
pub mod fixture;
pub mod front;
pub mod garbage;
pub mod health;
mod httpd;
pub mod limits;
pub mod live;
pub mod oci;
pub mod proxy;
pub mod snapshot;
mod socket;
pub mod spans;
pub mod ssh;
pub mod tls;
pub mod token;
pub mod web;
