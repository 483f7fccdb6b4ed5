//! Three servers that Patroni keeps, and the etcd that it keeps them with.
//!
//! Guarantees that nothing of them is left when the group is dropped, or when the test dies.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::stores::{Port, folder};
use lab::{ArchiveDir, DEADLINE, Lab, Process, wait_for, wait_until};
use serde_json::Value;

use super::node::{Node, start_logged};

/// How long Patroni may take to have all three in their places again: it waits for a lock to expire, rewinds, and tries
/// again what failed, on a busy machine.
const WHOLE_DEADLINE: Duration = Duration::from_secs(240);

/// What Patroni says of one of its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    name: String,
    role: String,
    state: String,
    timeline: u64,
}

/// The three servers, and etcd.
pub(super) struct Group<'lab> {
    pub(super) nodes: Vec<Node<'lab>>,
    pub(super) archive: ArchiveDir,
    etcd: Process,
    etcd_child: Child,
    guard: Child,
    _ports: [Port; 2],
}

/// Stops whatever servers are left below this directory once this program lets go of it, or dies.
fn guard(lab: &Lab) -> Result<Child> {
    let script = "trap '' QUIT; read _; for file in \"$1\"/*/main/postmaster.pid; do \
                  [ -f \"$file\" ] && pg_ctl -D \"${file%/*}\" -m immediate stop; done";
    let mut command = lab.server_command("sh");
    command
        .args(["-c", script, "guard"])
        .arg(lab.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().context("could not start a shell")
}

impl<'lab> Group<'lab> {
    /// Starts etcd and the three nodes with this `archive_mode`, and waits until all are in their places.
    pub(super) fn start(lab: &'lab Lab, mode: &str) -> Result<Group<'lab>> {
        lab.require_library("walden")?;
        let archive = lab.archive("archive")?;
        let ports = [Port::take()?, Port::take()?];
        let [client, peer] = ports
            .each_ref()
            .map(|port| format!("http://127.0.0.1:{}", port.number()));
        let home = lab.directory("etcd")?;
        let program = folder("etcd")?.join("bin/etcd");
        let mut command = lab.server_command(&program.display().to_string());
        command.arg("--data-dir").arg(home.join("data"));
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let guard = guard(lab)?;
        let etcd_child = start_logged(&mut command, &home.join("log"))?;
        let nodes = (1..=3)
            .map(|number| Node::new(lab, number, &archive, mode, ports[0].number()))
            .collect::<Result<_>>()?;
        let group = Group {
            nodes,
            archive,
            etcd: Process {
                pid: etcd_child.id(),
                title: "etcd".to_owned(),
            },
            etcd_child,
            guard,
            _ports: ports,
        };
        group.nodes.iter().try_for_each(Node::start)?;
        group.whole()?;
        Ok(group)
    }

    /// The process that keeps Patroni's lock.
    pub(super) fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// What Patroni says of its servers; `None` while none of it answers.
    fn members(&self) -> Option<Vec<Member>> {
        let asked = self.nodes.iter().filter(|node| node.answers());
        let answer = asked
            .filter_map(|node| node.ask("GET", "/cluster", "").ok())
            .next()?;
        let text = |of: &Value, name: &str| {
            let value = of.get(name).and_then(Value::as_str).unwrap_or_default();
            value.to_owned()
        };
        let members = answer.get("members")?.as_array()?.iter();
        let members = members.map(|member| Member {
            name: text(member, "name"),
            role: text(member, "role"),
            state: text(member, "state"),
            timeline: member
                .get("timeline")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        });
        Some(members.collect())
    }

    /// The node that leads, once it takes writes.
    fn leader_of(&self, members: &[Member]) -> Option<(&Node<'lab>, u64)> {
        let leader = members
            .iter()
            .find(|member| member.role == "leader" && member.state == "running")?;
        let node = self.nodes.iter().find(|node| node.name == leader.name)?;
        node.is_primary().then_some((node, leader.timeline))
    }

    /// Waits until all three are in their places. Answers with the leader and its timeline.
    pub(super) fn whole(&self) -> Result<(&Node<'lab>, u64)> {
        self.whole_behind(0)
    }

    /// Waits until all three are in their places on a timeline after this one: one leads, two stream from it, one of them
    /// synchronously.
    pub(super) fn whole_behind(&self, old: u64) -> Result<(&Node<'lab>, u64)> {
        let mut seen = None;
        let found = wait_for("one leader and two that follow", WHOLE_DEADLINE, || {
            seen = self.members();
            let Some(members) = &seen else {
                return Ok(None);
            };
            let Some((leader, timeline)) = self.leader_of(members) else {
                return Ok(None);
            };
            let follows =
                |member: &&Member| member.state == "streaming" && member.timeline == timeline;
            let is_whole = members.iter().filter(follows).count() == 2
                && members.iter().any(|member| member.role == "sync_standby");
            Ok((is_whole && timeline > old).then_some((leader, timeline)))
        });
        found.with_context(|| format!("Patroni says: {seen:?}"))
    }

    /// Waits until another than this one leads.
    pub(super) fn other_leader(&self, old: &Node) -> Result<&Node<'lab>> {
        let mut seen = None;
        let found = wait_for("another leader", WHOLE_DEADLINE, || {
            seen = self.members();
            let leader = seen.as_deref().and_then(|members| self.leader_of(members));
            Ok(leader
                .map(|(node, _)| node)
                .filter(|node| node.name != old.name))
        });
        found.with_context(|| format!("Patroni says: {seen:?}"))
    }

    /// Has the leader's place taken by another, as an administrator asks for it.
    pub(super) fn switch_over(&self, leader: &Node) -> Result<()> {
        let body = format!("{{\"leader\": \"{}\"}}", leader.name);
        // Patroni may answer before it is done, and that it does not know.
        let answer = leader.ask("POST", "/switchover", &body);
        self.other_leader(leader)
            .with_context(|| format!("asked for it, Patroni said {answer:?}"))?;
        Ok(())
    }

    /// Waits until no node has anything left to archive.
    pub(super) fn wait_until_archived(&self) -> Result<()> {
        wait_until("no .ready file left on any node", || {
            for node in &self.nodes {
                if !node.ready()?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Fails if a node's archiver says that a file was refused.
    pub(super) fn check_nothing_refused(&self) -> Result<()> {
        for node in &self.nodes {
            let (status, refused) = wait_for("a node's archiver", DEADLINE, || {
                let status = node.sql("show walden.status")?;
                let status: Value = serde_json::from_str(&status).context(status)?;
                let refused = status.pointer("/archiver/files/refused");
                let refused = refused.and_then(Value::as_u64);
                Ok(refused.map(|refused| (status, refused)))
            })?;
            ensure!(refused == 0, "{}: {status}", node.name);
        }
        Ok(())
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // Patroni first: it would start its server again.
        self.nodes.clear();
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.etcd_child.kill();
        let _ = self.etcd_child.wait();
    }
}
