//! What steps run in: network, hosts, limits, and what they are permitted.

use clap::Args;

/// What steps run in.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Steps")]
pub(crate) struct StepArgs {
    /// A line for /etc/hosts; host-gateway is the machine of Docker Engine. Repeatable, or a comma list
    #[arg(long = "add-host", value_name = "NAME:IP", value_delimiter = ',')]
    pub(crate) add_hosts: Vec<String>,
    /// The network of steps: default, none or host
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// The size of /dev/shm, for instance 128m
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// A resource limit of processes. Repeatable
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// The control group under which steps run
    #[arg(long, value_name = "GROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// Something that steps may do: network.host, security.insecure, device[=NAME]. Repeatable
    #[arg(long = "allow", value_name = "WHAT")]
    pub(crate) allows: Vec<String>,
    /// Memory that a step may use
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// The share of processor time, relative to 1024
    #[arg(short, long, value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,
    /// The period of the processor limit, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// The processors that may be used, for instance 0-2,4
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes that may be used, for instance 0,1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
}
