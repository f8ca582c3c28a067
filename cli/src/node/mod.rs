//! What is asked of tandem-node: volumes, nodes, pools, events, the arbiter.

pub(crate) mod answer;
pub(crate) mod args;
mod ask;
mod confirm;
mod events;
mod order;
mod wait;

use args::{ArbiterCommand, NodeCommand, PoolCommand, VolumeCommand};

use crate::failure::{Ending, Failure};
use crate::server::Server;
use crate::watch::watch;

#[derive(Debug)]
pub(crate) enum Command {
    Volume(VolumeCommand),
    Node(NodeCommand),
    Pool(PoolCommand),
    Events { volume: Option<String>, json: bool },
    Arbiter(ArbiterCommand),
}

pub(crate) async fn talk(server: &Server, command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Volume(command) => of_volumes(server, command).await,
        Command::Node(command) => of_nodes(server, command).await,
        Command::Pool(PoolCommand::List { json }) => ask::show(&ask::Pools { server }, json.json).await,
        Command::Events { volume, json } => events::follow(server, volume.as_deref(), json).await,
        Command::Arbiter(ArbiterCommand::Status { json }) => ask::arbiter(server, json.json).await,
        Command::Arbiter(ArbiterCommand::Rebuild { destroyed, yes, json }) => {
            order::rebuild(server, &destroyed, yes, json.json).await
        }
    }
}

async fn of_volumes(server: &Server, command: VolumeCommand) -> Result<Ending, Failure> {
    use VolumeCommand as V;
    match command {
        V::List { watch: how, json } if how.watch => watch(&ask::Volumes { server }, how.interval, json.json).await,
        V::List { json, .. } => ask::show(&ask::Volumes { server }, json.json).await,
        V::Show { volume, watch: how, json } if how.watch => {
            watch(&ask::Volume { server, name: &volume }, how.interval, json.json).await
        }
        V::Show { volume, json, .. } => ask::show(&ask::Volume { server, name: &volume }, json.json).await,
        V::Create(create) => order::create(server, create).await,
        V::Delete { volume, yes, json } => order::delete(server, &volume, yes, json.json).await,
        V::Promote { volume, node, wait, json } => order::promote(server, &volume, node, wait, json.json).await,
        V::Demote { volume, wait, json } => order::demote(server, &volume, wait, json.json).await,
        V::ForcePrimary(force) => order::force_primary(server, force).await,
        V::Resync { volume, node, wait, json } => order::resync(server, &volume, &node, wait, json.json).await,
        V::Attach { volume, host, initiator, id, read_only, json } => {
            order::attach(server, &volume, &host, initiator, id, read_only, json.json).await
        }
        V::Revoke { volume, id, json } => order::revoke(server, &volume, id, json.json).await,
        V::Attachments { volume, json } => ask::show(&ask::Attachments { server, volume: &volume }, json.json).await,
    }
}

async fn of_nodes(server: &Server, command: NodeCommand) -> Result<Ending, Failure> {
    use NodeCommand as N;
    match command {
        N::List { watch: how, json } if how.watch => watch(&ask::Nodes { server }, how.interval, json.json).await,
        N::List { json, .. } => ask::show(&ask::Nodes { server }, json.json).await,
        N::Show { node, json } => ask::show(&ask::Node { server, name: &node }, json.json).await,
        N::Dead { node, boot_id, why, json } => order::dead(server, &node, boot_id, &why, json.json).await,
        N::Alive { node, json } => order::alive(server, &node, json.json).await,
        N::FenceHost { host, why, json } => order::fence_host(server, &host, &why, json.json).await,
        N::UnfenceHost { host, json } => order::unfence_host(server, &host, json.json).await,
        N::Fences { json } => ask::show(&ask::Fences { server }, json.json).await,
    }
}
