//! One cluster: the server, the controllers, the scheduler, some nodes; each can end at any moment and begin again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use apimachinery::call::User;
use apiserver::Api;
use base::task::Task;
use client::Client;
use controllers::Manager;
use kubelet::{Config, Kubelet};
use storage::sim::SimDisk;

use crate::doors::NodeMachine;
use crate::history::History;
use crate::net::Net;
use crate::server;

/// A cluster.
pub struct World {
    /// Its network.
    pub net: Arc<Net>,
    /// All that its store showed.
    pub history: Arc<History>,
    /// Its nodes' machines.
    pub machines: Vec<NodeMachine>,
    disk: SimDisk,
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    server: Option<Task<()>>,
    controllers: Option<Manager>,
    scheduler: Option<Task<Infallible>>,
    kubelets: Vec<Option<Task<()>>>,
}

impl World {
    /// A cluster of so many nodes, all up.
    pub fn new(nodes: u8) -> World {
        let world = World {
            net: Arc::default(),
            history: History::new(),
            machines: (1..=nodes).map(NodeMachine::new).collect(),
            disk: SimDisk::new(Duration::from_millis(2)),
            parts: Mutex::default(),
        };
        world.start_server();
        world.start_controllers();
        world.start_scheduler();
        for node in 0..world.machines.len() {
            world.parts().kubelets.push(None);
            world.start_kubelet(node);
        }
        world
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().expect("nobody panics holding it")
    }

    /// A client of a person with all rights.
    pub fn admin(&self) -> Client {
        Client::component(self.net.link(), User::new("admin", &["system:masters"]))
    }

    /// The server itself, once it answers: requests reach it without the network.
    pub async fn api(&self) -> Arc<Api> {
        self.net.api().await
    }

    /// The server's disk.
    pub fn disk(&self) -> SimDisk {
        self.disk.clone()
    }

    /// Begins a life of the server.
    pub fn start_server(&self) {
        let (net, history, disk) = (self.net.clone(), self.history.clone(), self.disk.clone());
        let life = base::task::spawn(async move {
            match server::start(disk, history.clone()).await {
                Ok(server) => {
                    net.serve(server.api.clone());
                    std::future::pending::<()>().await;
                    drop(server);
                }
                Err(err) => history.accuse(format!("the server does not start: {err:#}")),
            }
        });
        self.parts().server = Some(life);
    }

    /// Ends the server's life: killed, or by a power cut; whether it lived.
    pub fn end_server(&self, power_cut: bool) -> bool {
        let Some(life) = self.parts().server.take() else { return false };
        if power_cut {
            self.disk.power_cut();
        } else {
            self.disk.kill();
        }
        self.net.down();
        drop(life);
        true
    }

    /// Begins a life of the controllers.
    pub fn start_controllers(&self) {
        let manager = Manager::start(self.net.link(), server::settings(), controllers::ALL);
        self.parts().controllers = Some(manager);
    }

    /// Ends the controllers' life; whether they lived.
    pub fn end_controllers(&self) -> bool {
        let manager = self.parts().controllers.take();
        manager.is_some()
    }

    /// Begins a life of the scheduler.
    pub fn start_scheduler(&self) {
        let client = Client::component(self.net.link(), scheduler::user());
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
        let client = Client::component(self.net.link(), user);
        let life = base::task::spawn(Kubelet::run(Config::new(&name), client, self.machines[node].doors()));
        self.parts().kubelets[node] = Some(life);
    }

    /// Ends the life of a node's kubelet; whether it lived. The containers live on.
    pub fn end_kubelet(&self, node: usize) -> bool {
        let life = self.parts().kubelets[node].take();
        life.is_some()
    }
}
