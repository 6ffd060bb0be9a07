//! One cluster: the store, the API servers, the controllers, the scheduler, some nodes; each can end at any moment and
//! begin again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use apimachinery::call::User;
use apiserver::Api;
use base::task::Task;
use client::Client;
use controllers::{Controller, Manager};
use kubelet::{Config, Kubelet};
use storage::Store;
use storage::sim::SimDisk;

use crate::doors::NodeMachine;
use crate::history::{End, History};
use crate::net::Net;
use crate::seat::{Remote, Seat, Way};
use crate::server;

/// How long calls of the store's disk take at most, and a way to a store that is a process of its own.
pub const DISK_DELAY: Duration = Duration::from_millis(2);
const WAY_DELAY: Duration = Duration::from_millis(2);
/// How long a server waits that could not begin before it tries again.
const START_AGAIN: Duration = Duration::from_secs(1);

/// What a cluster is made of.
#[derive(Clone, Copy)]
pub struct Shape {
    /// How many API servers there are.
    pub servers: usize,
    /// Whether the store is a process of its own; else it lives and dies with the one server.
    pub apart: bool,
    /// Which controllers run.
    pub controllers: &'static [Controller],
    /// How many nodes there are; without any there is no scheduler either.
    pub nodes: u8,
}

/// A cluster.
pub struct World {
    /// What it is made of.
    pub shape: Shape,
    /// Its network.
    pub net: Arc<Net>,
    /// All that its store showed.
    pub history: Arc<History>,
    /// Its nodes' machines.
    pub machines: Vec<NodeMachine>,
    store: Arc<Seat<Arc<dyn Store>>>,
    disk: SimDisk,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    store: Option<Task<()>>,
    servers: Vec<Option<Server>>,
    controllers: Option<Manager>,
    scheduler: Option<Task<Infallible>>,
    kubelets: Vec<Option<Task<()>>>,
}

struct Server {
    way: Arc<Way>,
    // Never read: it lives as long as this.
    _life: Task<()>,
}

impl World {
    /// A cluster of one server that is all in one process, every controller, and so many nodes, all up.
    pub fn new(nodes: u8) -> World {
        World::of(Shape { servers: 1, apart: false, controllers: controllers::ALL, nodes })
    }

    /// A cluster of this shape, all up.
    pub fn of(shape: Shape) -> World {
        let world = World {
            shape,
            net: Arc::new(Net::new(shape.servers)),
            history: History::new(),
            machines: (1..=shape.nodes).map(NodeMachine::new).collect(),
            store: Arc::default(),
            disk: SimDisk::new(DISK_DELAY),
            parts: Mutex::default(),
        };
        world.start_store();
        for server in 0..shape.servers {
            world.parts().servers.push(None);
            world.start_server(server);
        }
        world.start_controllers();
        if shape.nodes > 0 {
            world.start_scheduler();
        }
        for node in 0..world.machines.len() {
            world.parts().kubelets.push(None);
            world.start_kubelet(node);
        }
        world
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().expect("nobody panics holding it")
    }

    /// A client of a person with all rights, who goes to this server first.
    pub fn admin_at(&self, server: usize) -> Client {
        Client::component(self.net.link(server), User::new("admin", &["system:masters"]))
    }

    /// A client of a person with all rights.
    pub fn admin(&self) -> Client {
        self.admin_at(0)
    }

    /// The first server itself, once it answers: requests reach it without the network.
    pub async fn api(&self) -> Arc<Api> {
        self.net.server(0).wait().await.answers.api().clone()
    }

    /// The store's disk.
    pub fn disk(&self) -> SimDisk {
        self.disk.clone()
    }

    /// How long calls of the store's disk take at most from now on.
    pub fn disk_takes(&self, delay_most: Duration) {
        self.history.disk_takes(delay_most);
        self.disk.set_delay(delay_most);
    }

    /// Begins a life of the store.
    pub fn start_store(&self) {
        let (seat, history, disk) = (self.store.clone(), self.history.clone(), self.disk.clone());
        let life = base::task::spawn(async move {
            match server::open(disk, history.clone()).await {
                Ok((store, follow)) => {
                    seat.serve(store);
                    follow.await;
                }
                Err(err) => history.accuse(format!("the store does not open: {err:#}")),
            }
        });
        self.parts().store = Some(life);
    }

    /// Ends the store's life: killed, or by a power cut, which ends all servers, too; whether it lived.
    pub fn end_store(&self, end: End) -> bool {
        let Some(life) = self.parts().store.take() else { return false };
        self.history.ends(end);
        match end {
            End::Killed => self.disk.kill(),
            End::PowerCut => self.disk.power_cut(),
        }
        self.store.down();
        drop(life);
        if end == End::PowerCut || !self.shape.apart {
            for server in 0..self.shape.servers {
                self.end_server_alone(server);
            }
        }
        true
    }

    /// Begins a life of whatever [`World::end_store`] ended.
    pub fn start_all(&self) {
        if self.parts().store.is_none() {
            self.start_store();
        }
        for server in 0..self.shape.servers {
            if self.parts().servers[server].is_none() {
                self.start_server(server);
            }
        }
    }

    fn start_server(&self, server: usize) {
        let (net, history, seat) = (self.net.clone(), self.history.clone(), self.store.clone());
        let apart = self.shape.apart;
        let way = Arc::new(Way::new(if apart { WAY_DELAY } else { Duration::ZERO }));
        let store = Arc::new(Remote { seat: seat.clone(), way: way.clone() });
        let life = base::task::spawn(async move {
            loop {
                seat.wait().await;
                match server::start(store.clone()).await {
                    Ok(api) => {
                        net.server(server).serve(api);
                        return std::future::pending().await;
                    }
                    // The store went away meanwhile.
                    Err(_) if apart => base::time::sleep(START_AGAIN).await,
                    Err(err) => return history.accuse(format!("the server does not start: {err:#}")),
                }
            }
        });
        self.parts().servers[server] = Some(Server { way, _life: life });
    }

    /// Kills a server, and the store that lives in its process; whether it lived.
    pub fn end_server(&self, server: usize) -> bool {
        if self.shape.apart { self.end_server_alone(server) } else { self.end_store(End::Killed) }
    }

    fn end_server_alone(&self, server: usize) -> bool {
        let Some(life) = self.parts().servers[server].take() else { return false };
        life.way.end();
        self.net.server(server).down();
        drop(life);
        true
    }

    /// Cuts a server's way to the store, or mends it, if the server lives.
    pub fn cut(&self, server: usize, cut: bool) {
        if let Some(server) = &self.parts().servers[server] {
            server.way.cut(cut);
        }
    }

    /// Begins a life of the controllers.
    pub fn start_controllers(&self) {
        let manager = Manager::start(self.net.link(0), server::settings(), self.shape.controllers);
        self.parts().controllers = Some(manager);
    }

    /// Ends the controllers' life; whether they lived.
    pub fn end_controllers(&self) -> bool {
        let manager = self.parts().controllers.take();
        manager.is_some()
    }

    /// Begins a life of the scheduler.
    pub fn start_scheduler(&self) {
        let client = Client::component(self.net.link(0), scheduler::user());
        let life = base::task::spawn(scheduler::run(client, scheduler::Config::default()));
        self.parts().scheduler = Some(life);
    }

    /// Ends the scheduler's life; whether it lived.
    pub fn end_scheduler(&self) -> bool {
        let life = self.parts().scheduler.take();
        life.is_some()
    }

    /// Begins a life of a node's kubelet.
    pub fn start_kubelet(&self, node: usize) {
        let name = format!("n{}", node + 1);
        let user = User::new(&format!("system:node:{name}"), &["system:nodes"]);
        let client = Client::component(self.net.link(0), user);
        let life = base::task::spawn(Kubelet::run(Config::new(&name), client, self.machines[node].doors()));
        self.parts().kubelets[node] = Some(life);
    }

    /// Ends the life of a node's kubelet; whether it lived. The containers live on.
    pub fn end_kubelet(&self, node: usize) -> bool {
        let life = self.parts().kubelets[node].take();
        life.is_some()
    }
}
