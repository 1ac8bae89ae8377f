//! The steps of the protocol, as the model checker takes them.

use stateright::{Model, Property};

use super::*;

fn only_if(condition: bool) -> Option<()> {
    condition.then_some(())
}

impl Nonces {
    fn push(&mut self, nonce: Nonce) {
        self.0 |= 1 << nonce;
    }

    fn contains(self, nonce: Nonce) -> bool {
        self.0 & 1 << nonce != 0
    }

    fn newest(self) -> Option<Nonce> {
        self.0.checked_ilog2().map(|nonce| nonce as Nonce)
    }

    fn has_events(self) -> bool {
        self.0.count_ones() > 1
    }

    fn without_the_newest(self) -> Self {
        Self(self.newest().map_or(0, |newest| self.0 & !(1 << newest)))
    }
}

impl Redis {
    fn older_copy(&self) -> Self {
        Self {
            life: self.life + 1,
            chain: self.chain.without_the_newest(),
            lists_the_token: true,
            register: [None; INSTANCES],
        }
    }
}

impl World {
    fn acknowledged(&self) -> bool {
        matches!(self.revocation, Revocation::Acknowledged { .. })
    }

    fn end_epoch(&mut self, of: Instance) {
        self.epochs[of] = None;
        if of == REVOKER && matches!(self.revocation, Revocation::Published { .. }) {
            self.revocation = Revocation::Committed;
        }
    }

    fn end_request(&mut self, broken: Option<&'static str>) {
        self.request = None;
        self.broken = broken;
    }
}

/// The steps of the protocol, in order. Each returns `None` if it is not possible in this state.
impl Protocol {
    fn keeps(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    /// The time after which a lease has certainly expired, by any clock.
    fn expiry_bound(&self) -> Ticks {
        let fastest = self.clock_rates.as_flattened().iter().max().copied().unwrap_or(1);
        if self.keeps(MarginForDrift) { self.lease * fastest } else { self.lease }
    }

    fn has_expired(&self, age: Ticks) -> bool {
        age >= self.expiry_bound()
    }

    fn add_to_the_chain(&self, world: &mut World, bus: Bus) -> Option<Nonce> {
        only_if(world.nonces_used < self.most_nonces)?;
        world.nonces_used += 1;
        world.redis[bus].chain.push(world.nonces_used);
        Some(world.nonces_used)
    }

    fn has_two_redises(&self) -> bool {
        self.redises > 1
    }

    /// After a silence of this length, a follower joins again, and the others consider its instance dead.
    fn stall(&self) -> Ticks {
        self.lease + 1
    }

    fn tick(&self, world: &mut World, rates: [Ticks; INSTANCES]) -> Option<()> {
        let bound = self.expiry_bound();
        for (who, rate) in rates.into_iter().enumerate() {
            world.leases[who] = world.leases[who].saturating_sub(rate);
            let Some(epoch) = &mut world.epochs[who] else { continue };
            let ages = [Some(&mut epoch.age), epoch.renewal.as_mut().map(|renewal| &mut renewal.age)];
            ages.into_iter().flatten().for_each(|age| *age = bound.min(*age + rate));
            if self.has_two_redises() {
                epoch.silence = self.stall().min(epoch.silence + rate);
            }
        }
        // The revoker is the one that measures for how long another instance has not reported.
        let grow = |age: &mut Ticks| *age = bound.min(*age + rates[REVOKER]);
        let reports = world.redis.iter_mut().flat_map(|redis| redis.register.iter_mut().flatten());
        reports.for_each(|report| grow(&mut report.age));
        if let Revocation::Published { applied: Some(age), .. } = &mut world.revocation {
            grow(age);
        }
        Some(())
    }

    fn connected(&self, world: &World, who: Instance) -> Option<Epoch> {
        world.epochs[who]
            .filter(|epoch| epoch.life == world.redis[epoch.bus].life || !self.keeps(ConnectionEndsWithRedis))
    }

    fn join(&self, world: &mut World, who: Instance, bus: Bus) -> Option<()> {
        only_if(self.connected(world, who).is_none())?;
        // All Redises are alike, so the first is the one that is joined first.
        only_if(bus == 0 || world.redis[0].chain != Nonces::default())?;
        world.end_epoch(who);
        if world.redis[bus].chain == Nonces::default() {
            self.add_to_the_chain(world, bus)?;
        }
        if who == REVOKER && self.keeps(CommandsFollowTheEpoch) {
            world.commands = None;
        }
        if self.keeps(AskTheStoreInTheEpoch) {
            world.answers[who] = None;
        }
        let Redis { life, chain, .. } = world.redis[bus];
        let place = chain.newest()?;
        // Only the age of the revoker's epoch matters; the other epoch starts old, which saves states.
        let age = if who == REVOKER { 0 } else { self.expiry_bound() };
        let phase = match (self.has_two_redises(), self.keeps(RecordBeforeComparing)) {
            (false, _) => Phase::Agreed,
            (true, false) => Phase::Joined,
            (true, true) => {
                world.sql.follows[who] = Some(bus);
                Phase::HalfAgreed
            }
        };
        world.epochs[who] = Some(Epoch { bus, life, age, silence: 0, place, phase, renewal: None });
        Some(())
    }

    fn compare(&self, world: &mut World, who: Instance) -> Option<()> {
        let (before, after) = match self.keeps(RecordBeforeComparing) {
            true => (Phase::HalfAgreed, Phase::Agreed),
            false => (Phase::Joined, Phase::HalfAgreed),
        };
        let epoch = world.epochs[who].as_mut().filter(|epoch| epoch.phase == before)?;
        let others = world.sql.follows.iter().enumerate().filter(|(other, _)| *other != who);
        let agrees = others.filter_map(|(_, follows)| *follows).all(|bus| bus == epoch.bus);
        if agrees || !self.keeps(AgreeOnTheBus) {
            epoch.phase = after;
            if who == REVOKER && self.keeps(EpochCountsFromAgreement) {
                epoch.age = 0;
            }
            if !self.keeps(StallCountsFromTheRecord) {
                epoch.silence = 0;
            }
        } else {
            world.sql.follows[who] = None;
            world.end_epoch(who);
        }
        Some(())
    }

    fn record_late(&self, world: &mut World, who: Instance) -> Option<()> {
        only_if(!self.keeps(RecordBeforeComparing))?;
        let epoch = world.epochs[who].as_mut().filter(|epoch| epoch.phase == Phase::HalfAgreed)?;
        epoch.phase = Phase::Agreed;
        world.sql.follows[who] = Some(epoch.bus);
        Some(())
    }

    /// The instance publishes that it follows nothing, or the others consider it dead. It is assumed that an
    /// instance that sends renewals also keeps its row alive.
    fn clear_record(&self, world: &mut World, of: Instance) -> Option<()> {
        world.sql.follows[of]?;
        only_if(world.epochs[of].is_none_or(|epoch| epoch.silence >= self.stall()))?;
        world.sql.follows[of] = None;
        Some(())
    }

    /// Whether SQL answers that the session is revoked.
    fn finds_the_revocation(&self, world: &World, who: Instance) -> Option<bool> {
        let reads_standby = self.reads_standby(world, who)?;
        let is_found = world.sql.session == Session::Revoked
            && (world.sql.token == TokenRow::Present || self.keeps(ReconcileBySessions))
            && (world.sql.clock_is_wrong_at != Some(who) || self.keeps(ReconcileBySharedClock))
            && self.keeps(ReconcileBeforeTrust);
        Some(is_found && !reads_standby)
    }

    fn ask_store(&self, world: &mut World, who: Instance) -> Option<()> {
        let can_reconcile = world.epochs[who].is_some_and(|epoch| epoch.phase == Phase::Agreed);
        only_if(can_reconcile || !self.keeps(AskTheStoreInTheEpoch))?;
        only_if(world.answers[who].is_none())?;
        world.answers[who] = Some(self.finds_the_revocation(world, who)?);
        Some(())
    }

    fn reconcile(&self, world: &mut World, who: Instance) -> Option<()> {
        world.epochs[who].filter(|epoch| epoch.phase == Phase::Agreed)?;
        let is_found = match self.asks_over_http.contains(&who) {
            true => world.answers[who].take()?,
            false => self.finds_the_revocation(world, who)?,
        };
        if is_found {
            world.mirrors[who] = Mirror::Dead;
        }
        if let Some(epoch) = &mut world.epochs[who] {
            epoch.phase = Phase::Reconciled;
        }
        if self.is_coarse { self.replay(world, who) } else { Some(()) }
    }

    fn replay(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = self.connected(world, who).filter(|epoch| epoch.phase == Phase::Reconciled)?;
        world.epochs[who] = Some(Epoch { phase: Phase::Following, ..epoch });
        if world.redis[epoch.bus].chain.has_events() && self.keeps(ReplayBeforeTrust) {
            world.mirrors[who] = Mirror::Dead;
        }
        Some(())
    }

    fn send_renewal(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = self.connected(world, who)?;
        only_if(epoch.phase == Phase::Following && epoch.renewal.is_none())?;
        if epoch.silence >= self.stall() && self.keeps(RejoinAfterAStall) {
            world.end_epoch(who);
            return Some(());
        }
        let renewal = Some(Renewal { age: 0, answer: None });
        world.epochs[who] = Some(Epoch { renewal, silence: 0, ..epoch });
        Some(())
    }

    fn redis_answers(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = self.connected(world, who)?;
        let renewal = epoch.renewal.filter(|renewal| renewal.answer.is_none())?;
        let redis = &mut world.redis[epoch.bus];
        let newest_event = redis.chain.newest().filter(|&event| event > epoch.place);
        let chain_holds = redis.chain.contains(epoch.place);
        let all_report_it = match world.revocation {
            // The revoker needs no report of its own, because it makes this request.
            Revocation::Published { event, .. } if who == REVOKER => {
                redis.chain.contains(event)
                    && redis.register.iter().flatten().all(|report| report.place >= event)
            }
            _ => false,
        };
        if who != REVOKER {
            redis.register[who] = Some(Report { place: epoch.place, age: 0 });
        }
        let answer = Some(Answer { chain_holds, newest_event, all_report_it });
        world.epochs[who] = Some(Epoch { renewal: Some(Renewal { answer, ..renewal }), ..epoch });
        if self.is_coarse { self.apply_answer(world, who) } else { Some(()) }
    }

    fn apply_answer(&self, world: &mut World, who: Instance) -> Option<()> {
        let epoch = world.epochs[who].as_mut()?;
        let Renewal { age, answer } = epoch.renewal?;
        let answer = answer?;
        epoch.renewal = None;
        let has_stalled = epoch.silence >= self.stall() && self.keeps(NoAcknowledgementAfterAStall);
        if !answer.chain_holds && self.keeps(Chain) || has_stalled {
            world.end_epoch(who);
            return Some(());
        }
        if let Some(event) = answer.newest_event {
            epoch.place = event;
            world.mirrors[who] = Mirror::Dead;
        }
        let age = if self.keeps(LeaseFromTheSend) { age } else { 0 };
        if self.serves.contains(&who) {
            world.leases[who] = self.lease.saturating_sub(age);
        }
        if who == REVOKER {
            let epoch = *epoch;
            self.acknowledge(world, epoch, answer);
        }
        Some(())
    }

    fn forget_report(&self, world: &mut World, of: Instance, bus: Bus) -> Option<()> {
        let report = world.redis[bus].register[of]?;
        only_if(self.has_expired(report.age) || !self.keeps(ForgetOnlyTheSilent))?;
        world.redis[bus].register[of] = None;
        Some(())
    }

    fn revoke(&self, world: &mut World) -> Option<()> {
        only_if(world.revocation == Revocation::NotAsked)?;
        only_if(world.sql.read_from_standby_by != Some(REVOKER))?;
        let needs_publishing = match world.sql.session {
            Session::Live => true,
            Session::Revoked => self.keeps(PublishAgain),
            Session::Lost => self.keeps(PublishUnknownSessions),
        };
        if world.sql.session == Session::Live && self.keeps(TruthFirst) {
            world.sql.session = Session::Revoked;
        }
        world.mirrors[REVOKER] = Mirror::Dead;
        world.revocation = match needs_publishing {
            true => Revocation::Committed,
            false => Revocation::Acknowledged { all_reported: false },
        };
        Some(())
    }

    /// The connection for commands is another one than that of the epoch, and may lead to another Redis.
    fn publish(&self, world: &mut World, bus: Bus) -> Option<()> {
        self.connected(world, REVOKER)?;
        only_if(world.revocation == Revocation::Committed)?;
        only_if(world.commands.is_none_or(|commands| commands == bus))?;
        world.commands = self.has_two_redises().then_some(bus);
        let event = self.add_to_the_chain(world, bus)?;
        // SQL lists the tokens that have to be removed.
        if world.sql.session != Session::Lost && world.sql.token == TokenRow::Present {
            world.redis[bus].lists_the_token = false;
        }
        let applied = if self.keeps(EchoBeforeAcknowledgement) { None } else { Some(0) };
        world.revocation = match self.keeps(WaitForTheOthers) {
            true => Revocation::Published { event, applied },
            false => Revocation::Acknowledged { all_reported: false },
        };
        Some(())
    }

    fn acknowledge(&self, world: &mut World, epoch: Epoch, answer: Answer) {
        let Revocation::Published { event, applied } = world.revocation else { return };
        let came_back_now = (answer.newest_event >= Some(event)).then_some(0);
        let Some(age) = applied.or(came_back_now) else { return };
        // A young epoch may read a register that has lost an instance whose lease is still valid.
        let reports_count = self.has_expired(epoch.age) || !self.keeps(OldEpochToCountReports);
        let all_reported = answer.all_report_it && reports_count;
        let leases_have_lapsed = self.has_expired(age);
        if all_reported || leases_have_lapsed {
            if world.sql.session == Session::Live {
                world.sql.session = Session::Revoked; // only if `TruthFirst` is left out
            }
            world.revocation = Revocation::Acknowledged { all_reported };
        } else {
            world.revocation = Revocation::Published { event, applied: Some(age) };
        }
    }

    fn request(&self, world: &mut World, at: Instance) -> Option<()> {
        only_if(world.request.is_none())?;
        let leased = world.leases[at] > 0 || !self.keeps(LeaseBeforeTheLookUp);
        let stage = if leased { Stage::LookUp } else { Stage::AskSql };
        world.request = Some(Request { at, stage, forbidden: world.acknowledged().then_some(PROMISE) });
        while self.is_coarse && world.request.is_some() {
            if self.request_goes_on(world).is_none() {
                world.request = None;
            }
        }
        Some(())
    }

    /// Whether the instance reads SQL from a standby. `None` if it cannot read SQL, because it refuses one.
    fn reads_standby(&self, world: &World, who: Instance) -> Option<bool> {
        let is_standby = world.sql.read_from_standby_by == Some(who);
        only_if(!is_standby || !self.keeps(PrimaryOnly))?;
        Some(is_standby)
    }

    fn is_live_in_sql(&self, world: &World, who: Instance) -> Option<bool> {
        let Sql { session, token, .. } = world.sql;
        let is_live = session == Session::Live && token == TokenRow::Present;
        Some(self.reads_standby(world, who)? || is_live)
    }

    fn request_goes_on(&self, world: &mut World) -> Option<()> {
        let request = world.request?;
        let next = match request.stage {
            Stage::LookUp => match world.mirrors[request.at] {
                Mirror::Unknown => Stage::AskRedis,
                Mirror::Live if self.keeps(LeaseBeforeTheLookUp) => Stage::LetIn,
                Mirror::Live => Stage::LeaseAfterTheLookUp,
                Mirror::Dead => Stage::Refused,
            },
            Stage::LeaseAfterTheLookUp if world.leases[request.at] > 0 => Stage::LetIn,
            Stage::LeaseAfterTheLookUp => Stage::AskSql,
            Stage::AskRedis if world.redis.iter().any(|redis| redis.lists_the_token) => Stage::Fill,
            Stage::AskRedis if self.keeps(UnlistedIsNotDead) => Stage::AskSqlToFill,
            Stage::AskRedis => Stage::Refused,
            Stage::AskSqlToFill if self.is_live_in_sql(world, request.at)? => Stage::Fill,
            Stage::AskSql if self.is_live_in_sql(world, request.at)? => Stage::LetIn,
            Stage::AskSqlToFill | Stage::AskSql => Stage::Refused,
            Stage::Fill => return self.fill(world, request),
            Stage::LetIn | Stage::Refused => return None,
        };
        match next {
            Stage::LetIn => world.end_request(request.forbidden),
            Stage::Refused => {
                let Sql { session, token, .. } = world.sql;
                let is_right = session != Session::Live || token == TokenRow::Lost;
                world.end_request((!is_right).then_some(NOT_UNASKED));
            }
            stage => world.request = Some(Request { stage, ..request }),
        }
        Some(())
    }

    /// The response of Redis or SQL may be outdated by now, so the request looks again as if it had just
    /// started.
    fn fill(&self, world: &mut World, request: Request) -> Option<()> {
        let mirror = &mut world.mirrors[request.at];
        if *mirror == Mirror::Unknown || !self.keeps(DeadWins) {
            *mirror = Mirror::Live;
        }
        let leased = world.leases[request.at] > 0 || !self.keeps(LeaseAgainAfterAFill);
        let stage = if leased { Stage::LookUp } else { Stage::AskSql };
        let forbidden = request.forbidden.or(world.acknowledged().then_some(SECOND_LOOK));
        world.request = Some(Request { stage, forbidden, ..request });
        Some(())
    }

    /// SQL is not reachable: 503, which is not a refusal.
    fn request_gives_up(&self, world: &mut World) -> Option<()> {
        world.request.take().map(drop)
    }

    fn suffer(&self, world: &mut World, mishap: Mishap) -> Option<()> {
        world.mishaps_left = world.mishaps_left.checked_sub(1)?;
        match mishap {
            Crash(who) => {
                world.end_epoch(who);
                world.mirrors[who] = Mirror::Unknown;
                world.leases[who] = 0;
                world.request = world.request.filter(|request| request.at != who);
                if who == REVOKER {
                    world.commands = None;
                    if !world.acknowledged() {
                        world.revocation = Revocation::NotAsked;
                    }
                }
            }
            Disconnect(who) => world.end_epoch(who),
            Leave(who) => {
                if self.keeps(EndLeaseBeforeLeaving) {
                    world.leases[who] = 0;
                }
                world.redis.iter_mut().for_each(|redis| redis.register[who] = None);
                if self.keeps(StopFollowingBeforeLeaving) {
                    world.end_epoch(who);
                }
            }
            Flush => {
                let life = world.redis[0].life;
                world.redis[0] = Redis { life, ..Redis::default() };
            }
            FailOver => world.redis[0] = world.redis[0].older_copy(),
            LoseRegister => {
                world.redis[0].register = [None; INSTANCES];
                if self.keeps(HeadInTheRegister) {
                    world.redis[0].chain = Nonces::default();
                }
            }
            SqlForgets => world.sql.session = Session::Lost,
            SqlForgetsToken => world.sql.token = TokenRow::Lost,
            Standby(who) => world.sql.read_from_standby_by = Some(who),
            WrongClock(who) => {
                world.sql.clock_is_wrong_at = Some(who);
                if !self.keeps(DeleteBySharedClock) {
                    world.sql.token = TokenRow::DeletedEarly;
                }
            }
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let redis = [Redis { lists_the_token: true, ..Redis::default() }, Redis::default()];
        let mirrors = [Mirror::Live, if self.has_two_redises() { Mirror::Live } else { Mirror::Unknown }];
        vec![World { redis, mirrors, mishaps_left: self.mishaps_in_a_run, ..World::default() }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        let buses = 0..self.redises;
        steps.extend(self.clock_rates.iter().copied().map(Step::Tick));
        steps.extend([Step::Revoke, Step::RequestGoesOn, Step::RequestGivesUp]);
        steps.extend(buses.clone().map(Step::Publish));
        for who in 0..INSTANCES {
            steps.extend(buses.clone().map(|bus| Step::Join(who, bus)));
            if self.has_two_redises() {
                steps.extend([Step::Compare(who), Step::RecordLate(who), Step::ClearRecord(who)]);
            }
            steps.extend([Step::Reconcile(who), Step::Replay(who)]);
            steps.extend([Step::SendRenewal(who), Step::RedisAnswers(who), Step::ApplyAnswer(who)]);
            steps.extend(buses.clone().map(|bus| Step::ForgetReport(who, bus)));
        }
        steps.extend(self.asks_over_http.iter().copied().map(Step::AskStore));
        steps.extend(self.serves.iter().copied().map(Step::Request));
        steps.extend(self.mishaps.iter().copied().map(Step::Suffer));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = *last;
        match step {
            Step::Tick(rates) => self.tick(&mut world, rates),
            Step::Join(who, bus) => self.join(&mut world, who, bus),
            Step::Compare(who) => self.compare(&mut world, who),
            Step::RecordLate(who) => self.record_late(&mut world, who),
            Step::ClearRecord(of) => self.clear_record(&mut world, of),
            Step::AskStore(who) => self.ask_store(&mut world, who),
            Step::Reconcile(who) => self.reconcile(&mut world, who),
            Step::Replay(who) => self.replay(&mut world, who),
            Step::SendRenewal(who) => self.send_renewal(&mut world, who),
            Step::RedisAnswers(who) => self.redis_answers(&mut world, who),
            Step::ApplyAnswer(who) => self.apply_answer(&mut world, who),
            Step::ForgetReport(of, bus) => self.forget_report(&mut world, of, bus),
            Step::Revoke => self.revoke(&mut world),
            Step::Publish(bus) => self.publish(&mut world, bus),
            Step::Request(at) => self.request(&mut world, at),
            Step::RequestGoesOn => self.request_goes_on(&mut world),
            Step::RequestGivesUp => self.request_gives_up(&mut world),
            Step::Suffer(mishap) => self.suffer(&mut world, mishap),
        }?;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(PROMISE, |_, world: &World| world.broken != Some(PROMISE)),
            Property::always(SECOND_LOOK, |_, world: &World| world.broken != Some(SECOND_LOOK)),
            Property::always(NOT_UNASKED, |_, world: &World| world.broken != Some(NOT_UNASKED)),
            Property::sometimes("a miss is filled", |_, world: &World| world.mirrors[OTHER] == Mirror::Live),
            Property::sometimes("a revocation is acknowledged by all", |_, world: &World| {
                world.revocation == Revocation::Acknowledged { all_reported: true }
            }),
            Property::sometimes("a revocation is acknowledged after the lease", |_, world: &World| {
                world.acknowledged() && world.mirrors[OTHER] == Mirror::Live
            }),
        ];
        if self.has_two_redises() && self.mishaps.is_empty() {
            properties.push(Property::sometimes(MOVES, |_, world: &World| {
                world.acknowledged() && world.redis.iter().all(|redis| redis.chain.has_events())
            }));
        }
        properties
    }
}
