//! A whole data plane in processes: account database, control database and shards, with guards and records as
//! the operator writes them.

use std::net::{Ipv4Addr, SocketAddr};

use fortia_common::boot::{Boot, Service};
use fortia_common::records::{self, Config, Durability, EditStrategy, WorldConfig};
use fortia_common::topology::{Group, Layout, Phase, Placement, Topology};

use crate::server::TestServer;

/// Uid of the cluster every data plane belongs to.
pub const CLUSTER: &str = "test-cluster";

/// Servers of one cluster; they end when it is dropped.
pub struct DataPlane {
    /// The account database.
    pub auth_db: TestServer,
    /// The control database.
    pub control_db: TestServer,
    /// The shards, by index.
    pub shards: Vec<TestServer>,
    /// What every shard is started with, also those that come later.
    options: Vec<String>,
}

impl DataPlane {
    /// Starts a cluster that serves version 1 on so many shards, placed by modulo: guards open, topology and
    /// configuration (world `test`, seed 42, radius 2 that may grow to 4, ticks of 50 ms) written.
    pub async fn start(shards: u32) -> DataPlane {
        DataPlane::with(shards, Placement::Modulo).await
    }

    /// As [`DataPlane::start`], with the placement given.
    pub async fn with(shards: u32, placement: Placement) -> DataPlane {
        DataPlane::built(shards, placement, &[]).await
    }

    /// As [`DataPlane::start`], with options for every shard: `["--appendonly", "yes"]`.
    pub async fn with_servers(shards: u32, options: &[&str]) -> DataPlane {
        DataPlane::built(shards, Placement::Modulo, options).await
    }

    /// As [`DataPlane::with`] and [`DataPlane::with_servers`] together.
    pub async fn built(shards: u32, placement: Placement, options: &[&str]) -> DataPlane {
        let mut plane = DataPlane {
            auth_db: TestServer::start().await,
            control_db: TestServer::start().await,
            shards: Vec::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        for _ in 0..shards {
            plane.start_shard(["1", "1", "open"]).await;
        }
        admit(&plane.auth_db, "auth-db", 0, ["1", "0", "open"]).await;
        admit(&plane.control_db, "control-db", 0, ["1", "0", "open"]).await;
        plane.set_topology(&plane.topology_of(Layout { version: 1, shards, placement })).await;
        let config = Config {
            generation: 1,
            world: WorldConfig { name: "test".into(), seed: 42, radius: 2, limit: 4, tick_period_ms: 50 },
            edit_strategy: EditStrategy::Queue,
            durability: Durability::Memory,
            game_address: "127.0.0.1:0".into(),
            logs: None,
            max_cutover_pause_ms: 1000,
            accepted_loss: None,
        };
        plane.set_config(&config).await;
        plane
    }

    /// Starts one more shard than there are. It is in no topology yet, and its guard is frozen at the serving
    /// version: only the scheduler opens it, at the end of a re-sharding.
    pub async fn add_shard(&mut self) {
        let topology = self.topology().await;
        let (epoch, version) = (topology.epoch.to_string(), topology.serving.version.to_string());
        self.start_shard([&epoch, &version, "frozen"]).await;
    }

    async fn start_shard(&mut self, first: [&str; 3]) {
        let index = self.shards.len() as u32;
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let shard = TestServer::start_with(&options).await;
        admit(&shard, &format!("shard-{index}"), index, first).await;
        self.shards.push(shard);
    }

    /// What a process of this service, the only one, boots from. Its ports are free ones.
    pub fn boot(&self, service: Service) -> Boot {
        self.boot_as(service, &format!("{service}-0"))
    }

    /// As [`DataPlane::boot`], with a name of its own.
    pub fn boot_as(&self, service: Service, instance: &str) -> Boot {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Boot {
            service,
            instance: instance.to_owned(),
            cluster: CLUSTER.into(),
            control_db: self.control_db.address(),
            password: String::new(),
            listen: any_port,
            admin: any_port,
            advertise: any_port.to_string(),
            log: "info".into(),
        }
    }

    /// A topology of epoch 1 that serves this layout on the servers there are.
    pub fn topology_of(&self, serving: Layout) -> Topology {
        Topology {
            epoch: 1,
            cluster: CLUSTER.into(),
            serving,
            target: None,
            previous: None,
            phase: None,
            groups: self.groups(),
            auth_db: self.auth_db.address(),
        }
    }

    /// The groups of the shards there are.
    pub fn groups(&self) -> Vec<Group> {
        let group = |(i, server): (usize, &TestServer)| Group {
            name: format!("shard-{i}"),
            primary: server.address(),
            replicas: Vec::new(),
        };
        self.shards.iter().enumerate().map(group).collect()
    }

    /// The topology that is written.
    pub async fn topology(&self) -> Topology {
        let json: String = self.control_db.run(&["GET", records::TOPOLOGY]).await;
        serde_json::from_str(&json).expect("a topology")
    }

    /// Writes a topology, as the operator does: its epoch must be newer than the one that is there.
    pub async fn set_topology(&self, topology: &Topology) {
        let expected: Option<String> = self.control_db.run(&["GET", records::TOPOLOGY]).await;
        let expected =
            expected.map_or(0, |json| serde_json::from_str::<Topology>(&json).expect("a topology").epoch);
        let json = serde_json::to_string(topology).expect("json");
        let swap = ["FCALL", "fortia_topology", "1", records::TOPOLOGY, &expected.to_string(), &json];
        self.control_db.run::<()>(&swap).await;
    }

    /// Begins a re-sharding to the next version with so many shards, starting servers it lacks: a topology with
    /// target and phase, under the next epoch. Guards stay as they are: the scheduler changes them.
    pub async fn retarget(&mut self, shards: u32, phase: Phase) -> Topology {
        let serving = self.topology().await.serving;
        self.retarget_to(Layout { version: serving.version + 1, shards, ..serving }, phase).await
    }

    /// As [`DataPlane::retarget`], to any layout.
    pub async fn retarget_to(&mut self, target: Layout, phase: Phase) -> Topology {
        while self.shards.len() < target.shards as usize {
            self.add_shard().await;
        }
        let mut topology = self.topology().await;
        topology.epoch += 1;
        topology.target = Some(target);
        topology.phase = Some(phase);
        topology.groups = self.groups();
        self.set_topology(&topology).await;
        topology
    }

    /// Writes a configuration.
    pub async fn set_config(&self, config: &Config) {
        let json = serde_json::to_string(config).expect("json");
        self.control_db.run::<()>(&["SET", records::CONFIG, &json]).await;
    }
}

/// Guards an empty server, as the operator does when it first admits it: epoch, version and state.
async fn admit(server: &TestServer, group: &str, index: u32, [epoch, version, state]: [&str; 3]) {
    let index = index.to_string();
    let guard = [
        "FCALL",
        "fortia_guard",
        "1",
        records::GUARD,
        CLUSTER,
        group,
        &index,
        epoch,
        version,
        state,
        "0",
        "",
    ];
    server.run::<()>(&guard).await;
}
