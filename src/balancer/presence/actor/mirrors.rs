//! The mirrors of the list, and their proofs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::PresenceActor;
use super::scanning::MirrorScan;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::presence::index::OLD;
use crate::balancer::presence::proofs::{ProofHistory, ProofMatch, proven_age};
use crate::balancer::presence::requests::digest_of;
use crate::balancer::presence::snapshot::SeenProof;
use crate::balancer::presence::{MirrorProof, ProofState};
use crate::balancer::ranking::table::BackendEntry;

/// The time for which a mirror keeps its proven generation after its proof has changed to unknown content: it may have received
/// a release before the catalogue was read.
const UNKNOWN_TIME: Duration = Duration::from_mins(2);

/// A mirror of the list.
pub(super) struct PresenceMirror {
    pub(super) id: BackendId,
    pub(super) proof: Option<Arc<str>>,
    pub(super) is_origin: bool,
    /// The digest of its proof; zeros if it has no such file.
    pub(super) digest: Option<SeenProof>,
    /// The time since which its proof has unknown content.
    unknown_since: Option<Instant>,
    pub(super) due: Instant,
    pub(super) is_asked: bool,
    /// Its scans, if its line has `scan=`.
    pub(super) scan: Option<MirrorScan>,
}

impl PresenceActor {
    /// Adds new backends of the latest table and removes others.
    pub(super) fn take_list(&mut self) {
        let table = self.plan.publisher.latest();
        let is_known = |entry: &BackendEntry| {
            self.mirrors.get(&entry.load.number()).is_some_and(|known| known.is_of(&entry.backend))
        };
        if table.entries.len() == self.mirrors.len() && table.entries.iter().all(is_known) {
            return;
        }
        let listed: BTreeMap<u32, Backend> =
            table.entries.iter().map(|entry| (entry.load.number(), entry.backend.clone())).collect();
        let gone: Vec<u32> = self
            .mirrors
            .iter()
            .filter(|(number, mirror)| listed.get(number).is_none_or(|backend| !mirror.is_of(backend)))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.remove(number);
        }
        for (number, backend) in listed {
            if self.mirrors.contains_key(&number) {
                continue;
            }
            // Spread, so that many mirrors are not asked at once.
            let spread = self.plan.proof_interval.min(Duration::from_secs(2)) * (number % 32) / 32;
            let earlier = self.earlier.remove(&number).filter(|known| known.id == backend.id().as_str());
            let seen = earlier.as_ref().and_then(|earlier| earlier.scan);
            let scan = backend.scan().map(|address| MirrorScan::new(address, seen, self.plan.scan_interval));
            // Without further scans, the files that it lacked would never return.
            let forgets = backend.is_origin() || (seen.is_some() && scan.is_none());
            let mirror = PresenceMirror {
                id: backend.id().clone(),
                proof: backend.proof().cloned(),
                is_origin: backend.is_origin(),
                digest: earlier.and_then(|earlier| earlier.proof),
                unknown_since: None,
                due: Instant::now() + spread,
                is_asked: false,
                scan,
            };
            self.mirrors.insert(number, mirror);
            if forgets {
                self.forget_exceptions(number);
            }
            self.show_scan(number);
        }
        self.judge();
    }

    fn remove(&mut self, number: u32) {
        if let Some(mirror) = self.mirrors.remove(&number) {
            self.plan.metrics.forget_scans(mirror.id.as_str());
        }
        self.plan.presence.scans.pin().remove(&number);
        self.checks.remove(number);
        self.missing.retain(|(mirror, _), _| *mirror != number);
        self.plan.presence.mirrors.pin().remove(&number);
        self.forget_exceptions(number);
        if let Some(generation) = self.current() {
            // As for a number that was never used: the next backend with it has not proven new files.
            generation.set_proven_age(number, OLD);
        }
    }

    /// Assumes that a mirror has every file.
    fn forget_exceptions(&mut self, number: u32) {
        self.plan.presence.exceptions.pin().retain(|(_, mirror), _| *mirror != number);
        self.changes.retain(|(_, mirror, _)| *mirror != number);
        if let (Some(generation), Some(interner)) = (self.current(), &mut self.interner) {
            interner.forget(&generation.index, number);
        }
        self.count();
    }

    /// Applies the latest proofs to the current generation.
    pub(super) fn judge(&mut self) {
        let Some(generation) = self.current() else { return };
        self.history.observe(&generation, self.mirrors.values().filter_map(|mirror| mirror.proof.as_ref()));
        let known = self.plan.presence.mirrors.pin();
        for (number, mirror) in &self.mirrors {
            let proof = mirror.judge(&self.history, generation.number);
            generation.set_proven_age(*number, proof.age);
            let before = known.insert(*number, proof.clone());
            if before.is_none_or(|before| *before != proof) {
                let (mirror, state) = (&mirror.id, &proof.state);
                match state {
                    ProofState::OtherContent { .. } | ProofState::NoReference => {
                        tracing::warn!(%mirror, %state, "the files of a mirror");
                    }
                    ProofState::Proven { .. } => tracing::info!(%mirror, %state, "the files of a mirror"),
                    _ => tracing::debug!(%mirror, %state, "the files of a mirror"),
                }
            }
        }
    }

    pub(super) fn ask_for_proofs(&mut self, ctx: &mut Context<Self>) {
        let Some(current) = self.current() else { return };
        let (now, client) = (Instant::now(), self.client());
        let interval = self.plan.proof_interval;
        let mut due = Vec::new();
        for (number, mirror) in &mut self.mirrors {
            let Some(proof) = mirror.proof.clone().filter(|_| mirror.due <= now && !mirror.is_asked) else {
                continue;
            };
            // A mirror that may receive a release now is asked twice as often.
            let is_behind = mirror.judge(&self.history, current.number).age > 0;
            mirror.due = now + if is_behind { interval / 2 } else { interval };
            mirror.is_asked = true;
            due.push((*number, format!("{}{proof}", mirror.id), proof));
        }
        for (number, url, proof) in due {
            let client = client.clone();
            let asking = async move { digest_of(&client, &url).await };
            ctx.spawn(
                asking.into_actor(self).map(move |result, actor, _| actor.proven(number, &proof, result)),
            );
        }
    }

    fn proven(&mut self, number: u32, proof: &Arc<str>, result: Result<[u8; 32], String>) {
        let Some(mirror) = self.mirrors.get_mut(&number) else { return };
        mirror.is_asked = false;
        if mirror.proof.as_ref() != Some(proof) {
            return;
        }
        let digest = match result {
            Ok(digest) => digest,
            Err(reason) => {
                self.plan.metrics.proven("failed");
                tracing::debug!(mirror = %mirror.id, %proof, reason, "no proof");
                return;
            }
        };
        self.plan.metrics.proven("received");
        if mirror.digest.is_some_and(|(known, _)| known == digest) {
            mirror.unknown_since = None;
            return;
        }
        let is_known =
            |digest: &[u8; 32]| matches!(self.history.compare(proof, digest), ProofMatch::Generation(_));
        if !is_known(&digest)
            && mirror.digest.is_some_and(|(known, _)| is_known(&known))
            && mirror.unknown_since.get_or_insert_with(Instant::now).elapsed() < UNKNOWN_TIME
        {
            return;
        }
        mirror.unknown_since = None;
        mirror.digest = Some((digest, SystemTime::now()));
        if let Some(scan) = &mut mirror.scan {
            scan.interrupt();
        }
        self.saving.is_changed = true;
        if mirror.is_origin {
            self.history.learn(proof, digest);
        }
        self.history.recognise(proof, &digest);
        self.judge();
        // After a new release, missing files may have arrived.
        let lacking: Vec<u64> = {
            let exceptions = self.plan.presence.exceptions.pin();
            exceptions.keys().filter(|(_, mirror)| *mirror == number).map(|(key, _)| *key).collect()
        };
        for key in lacking {
            self.checks.queue(number, key);
        }
    }
}

impl PresenceMirror {
    fn is_of(&self, backend: &Backend) -> bool {
        let (proof, is_origin) = (self.proof.as_ref(), self.is_origin);
        let scan = self.scan.as_ref().map(MirrorScan::address);
        self.id == *backend.id()
            && (proof, is_origin, scan) == (backend.proof(), backend.is_origin(), backend.scan())
    }

    /// Whether its evidence about files is a scan, and not a proof.
    pub(super) fn is_only_scanned(&self) -> bool {
        self.proof.is_none() && self.scan.as_ref().is_some_and(|scan| scan.seen().is_some())
    }

    pub(super) fn judge(&self, history: &ProofHistory, current: u64) -> MirrorProof {
        let (age, state) = match (&self.proof, self.digest) {
            _ if self.is_origin => (0, ProofState::Origin),
            (None, _) => (0, ProofState::NotAsked),
            (Some(_), None) => (OLD, ProofState::Waiting),
            (Some(proof), Some((digest, at))) => match history.compare(proof, &digest) {
                ProofMatch::Generation(generation) => {
                    (proven_age(current, generation), ProofState::Proven { generation, at })
                }
                ProofMatch::Other => (OLD + 1, ProofState::OtherContent { at }),
                ProofMatch::NoReference => (OLD, ProofState::NoReference),
            },
        };
        MirrorProof { age, state }
    }
}
