//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::layout::Layout;
use crate::{bench, demo, down, host, image, install, node, server, status, up};

/// A complete Kubernetes in one binary.
#[derive(Parser)]
#[command(name = "keelson", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct At {
    /// Where the cluster is kept.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/keelson")]
    data_dir: PathBuf,
    /// Where sockets, mounts and locks of the running cluster are.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/keelson")]
    run_dir: PathBuf,
    /// The kubelet's directory.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where logs of pods go.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/log")]
    log_dir: PathBuf,
    /// The control group above those of all pods; nodes that share a machine need one each.
    #[arg(long, global = true, value_name = "PATH", default_value = "/keelson")]
    cgroup_root: String,
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster, or this machine's part of it; stays in the foreground.
    Up(Cluster),
    /// Stop the cluster with its pods, and take away what it made on this machine; data stays.
    Down,
    /// `down`, and remove the data.
    Reset {
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Have systemd run the cluster, after a reboot too.
    Install(install::Install),
    /// Show components, nodes, pods and certificates.
    Status,
    /// Images on this machine.
    Image {
        #[command(subcommand)]
        command: image::Command,
    },
    /// Show what a cluster does, on the running one or on one of its own.
    Demo(Cluster),
    /// Write the demo's image, made of this program, as an archive for `image import`.
    DemoImage {
        /// The archive to write.
        out: PathBuf,
    },
    /// Measure what a server does in a second.
    Bench {
        #[command(subcommand)]
        command: bench::Command,
    },
    /// Run the API server alone; stays in the foreground.
    Apiserver(Serving),
    /// Run the control plane: API server, controllers and scheduler; stays in the foreground.
    Server(Serving),
    /// The node (started by `up`).
    #[command(hide = true)]
    Node(Cluster),
}

/// What the cluster is like.
#[derive(Args, Clone, Debug)]
pub struct Cluster {
    /// Where the API server listens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    pub bind_address: SocketAddr,
    /// The address by which others reach this machine; that of the default route if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,
    /// The node's name; the host's if not given.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Addresses of pods, one range per IP family.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<String>,
    /// Addresses of Services, one range per IP family.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.96.0.0/12")]
    pub service_cidr: Vec<String>,
    /// The cluster's domain.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// How long a container that keeps ending waits at most until it is started again, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub max_container_restart_period: u64,
    #[command(flatten)]
    pub etcd: EtcdFlags,
}

/// Where the state is kept, if not in the data directory.
#[derive(Args, Clone, Debug, Default)]
pub struct EtcdFlags {
    /// Keep the state in this etcd (v3.4 or newer) instead of the data directory.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authority that signed etcd's certificates, PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd, PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

/// What the control plane's commands are told.
#[derive(Args, Clone, Debug)]
pub struct Serving {
    #[command(flatten)]
    pub cluster: Cluster,
    /// The API server's certificate chain, PEM; signed by the cluster's own authority if not given.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates are believed besides the cluster's own, PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// End with standard input, and tell each step to the program at standard output.
    #[arg(long, hide = true)]
    pub child: bool,
}

impl Cluster {
    /// The address by which others reach this machine.
    pub fn address(&self) -> IpAddr {
        self.node_ip.unwrap_or_else(host::address)
    }

    /// The address by which clients reach the API server: the one that it listens on, unless it listens on all.
    pub fn api_address(&self) -> IpAddr {
        let listens = self.bind_address.ip();
        if listens.is_unspecified() { self.address() } else { listens }
    }

    /// The node's name.
    pub fn node(&self) -> String {
        self.node_name.clone().unwrap_or_else(host::node_name)
    }

    /// The Service ranges as first address and prefix length.
    ///
    /// # Errors
    /// When one is no CIDR.
    pub fn service_ranges(&self) -> anyhow::Result<Vec<(IpAddr, u8)>> {
        let one = |cidr: &String| {
            let (base, bits) = cidr
                .split_once('/')
                .with_context(|| format!("--service-cidr {cidr:?} is not ADDRESS/BITS"))?;
            let wrong = || format!("--service-cidr {cidr:?}");
            Ok((base.parse().with_context(wrong)?, bits.parse().with_context(wrong)?))
        };
        self.service_cidr.iter().map(one).collect()
    }

    /// The `n`th address of each Service range: 1 is the API server's, 10 the DNS'.
    ///
    /// # Errors
    /// When a range is no CIDR.
    pub fn service_address(&self, n: u32) -> anyhow::Result<Vec<IpAddr>> {
        let nth = |(base, _): (IpAddr, u8)| match base {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + n).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(n)).into()),
        };
        Ok(self.service_ranges()?.into_iter().map(nth).collect())
    }

    /// The arguments that give another process the same cluster.
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        let whole = Cluster { node_ip: Some(self.address()), node_name: Some(self.node()), ..self.clone() };
        whole.given()
    }

    /// The same, leaving open what was left open here: address and name may be others after a reboot.
    pub fn given(&self) -> Vec<std::ffi::OsString> {
        let mut out: Vec<String> = vec!["--bind-address".into(), self.bind_address.to_string()];
        out.extend(self.node_ip.iter().flat_map(|ip| ["--node-ip".into(), ip.to_string()]));
        out.extend(self.node_name.iter().flat_map(|name| ["--node-name".into(), name.clone()]));
        out.extend([
            "--cluster-cidr".into(),
            self.cluster_cidr.join(","),
            "--service-cidr".into(),
            self.service_cidr.join(","),
        ]);
        out.extend(["--cluster-domain".into(), self.cluster_domain.clone()]);
        let period = self.max_container_restart_period.to_string();
        out.extend(["--max-container-restart-period".into(), period]);
        if !self.etcd.etcd_servers.is_empty() {
            out.extend(["--etcd-servers".into(), self.etcd.etcd_servers.join(",")]);
        }
        let mut out: Vec<std::ffi::OsString> = out.into_iter().map(Into::into).collect();
        let files = [
            ("--etcd-cafile", &self.etcd.etcd_cafile),
            ("--etcd-certfile", &self.etcd.etcd_certfile),
            ("--etcd-keyfile", &self.etcd.etcd_keyfile),
        ];
        for (flag, file) in files {
            out.extend(file.iter().flat_map(|file| [flag.into(), file.clone().into_os_string()]));
        }
        out
    }
}

/// Does what the command line says.
///
/// # Errors
/// Whatever went wrong, in full.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let layout = Layout {
        data: cli.at.data_dir,
        run: cli.at.run_dir,
        kubelet: cli.at.kubelet_dir,
        log: cli.at.log_dir,
        cgroups: cli.at.cgroup_root,
    };
    let component = match &cli.command {
        Command::Server(serving) => serving.child,
        Command::Node(_) => true,
        _ => false,
    };
    log(component);
    let runtime = match &cli.command {
        Command::Node(_) | Command::Server(_) | Command::Apiserver(_) => {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .max_blocking_threads(64)
                .enable_all()
                .build()
        }
        Command::Bench { command } if command.threads() > 1 => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(command.threads()).enable_all().build()
        }
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    }
    .context("start the runtime")?;
    runtime
        .block_on(async {
            match cli.command {
                Command::Up(cluster) => up::up(&layout, &cluster).await,
                Command::Down => down::down(&layout).await,
                Command::Reset { yes } => down::reset(&layout, yes).await,
                Command::Install(what) => install::run(&layout, &what),
                Command::Status => status::status(&layout).await,
                Command::Image { command } => image::run(&layout, command).await,
                Command::DemoImage { out } => {
                    let exe = std::env::current_exe().context("find this program")?;
                    demo::write_image(&out, &exe, demo::IMAGE)
                }
                Command::Demo(cluster) => demo::command::run(&layout, &cluster).await,
                Command::Bench { command } => bench::run(&layout, command).await,
                Command::Apiserver(serving) => server::run(&layout, &serving, false).await,
                Command::Server(serving) => server::run(&layout, &serving, true).await,
                Command::Node(cluster) => node::run(&layout, &cluster).await,
            }
        })
        .map(|()| ExitCode::SUCCESS)
}

/// Logs go to standard error: warnings for people, more for a component's file; `KEELSON_LOG` says how much.
fn log(component: bool) {
    use tracing_subscriber::filter::LevelFilter;
    let usual = if component { LevelFilter::INFO } else { LevelFilter::WARN };
    let level = std::env::var("KEELSON_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(usual);
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
}
