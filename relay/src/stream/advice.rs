//! Decides which routes a destination is asked about beside publishing, and what of its answers is news. Pure: the caller brings
//! the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use onceward_core::{Fault, Route, TopicReport, TopicState};

use crate::pause::CHECKED_AT_A_TIME;

/// The most routes that one stream asks about; `onceward doctor` asks about all.
const MOST_ROUTES: usize = 1_000;

/// How long a route rests whose state was not told, the first time; and how long all rest when the destination does not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How often a route's rest is doubled at most: to about an hour.
const DOUBLED_AT_MOST: u32 = 6;

/// The most routes that are named together.
const NAMED: usize = 5;

/// What a stream knows of the settings of its destination.
#[derive(Debug, Default)]
pub(super) struct Advice {
    met: HashSet<Route>,
    /// Met, and not told yet: when each is asked about.
    untold: BTreeSet<(Instant, Route)>,
    /// Being asked about.
    asking: Vec<Route>,
    /// How often each was asked about in vain.
    in_vain: HashMap<Route, u32>,
    /// The destination did not answer: nothing is asked before.
    rests_until: Option<Instant>,
    /// What was told: once is enough.
    told: HashSet<(Route, String)>,
}

/// A warning that was not told yet, and the routes that it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) warning: String,
    pub(super) routes: Vec<Route>,
}

impl Advice {
    /// The stream is held anew: what was being asked then gets no answer.
    pub(super) fn begin(&mut self, now: Instant) {
        let cut_off = self.asking.drain(..).map(|route| (now, route));
        self.untold.extend(cut_off);
    }

    /// Takes note of a route that is published to.
    pub(super) fn meet(&mut self, route: &Route, now: Instant) {
        if self.met.len() < MOST_ROUTES && self.met.insert(route.clone()) {
            self.untold.insert((now, route.clone()));
        }
    }

    /// A few routes to ask about now: none while others are being asked about.
    pub(super) fn next(&mut self, now: Instant) -> Vec<Route> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        while self.asking.len() < CHECKED_AT_A_TIME
            && self.untold.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, route)) = self.untold.pop_first()
        {
            self.asking.push(route);
        }
        self.asking.clone()
    }

    /// When routes are asked about.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, _) = self.untold.first().filter(|_| self.asking.is_empty())?;
        Some(self.rests_until.map_or(*first, |until| until.max(*first)))
    }

    /// The destination was asked, and said this.
    pub(super) fn answered(&mut self, reports: &[TopicReport], now: Instant) -> Vec<News> {
        // One that says nothing of these routes would say nothing of the others.
        let silent = !reports.iter().any(is_answer);
        self.rests_until = silent.then_some(now + AGAIN_AFTER);
        let told = reports.iter().filter(|report| is_told(report));
        let told: HashSet<&Route> = told.map(|report| &report.route).collect();
        for route in std::mem::take(&mut self.asking) {
            if told.contains(&route) {
                self.in_vain.remove(&route);
            } else {
                let times = self.in_vain.entry(route.clone()).or_default();
                let rest = AGAIN_AFTER * 2_u32.pow(*times);
                *times = DOUBLED_AT_MOST.min(*times + 1);
                self.untold.insert((now + rest, route));
            }
        }
        let states = reports.iter().filter_map(|report| {
            let state = report.state.as_ref().ok()?;
            Some((&report.route, state))
        });
        self.news(states)
    }

    /// What is new of what the destination says about routes.
    pub(super) fn news<'a>(
        &mut self,
        states: impl IntoIterator<Item = (&'a Route, &'a TopicState)>,
    ) -> Vec<News> {
        let mut news: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for (route, state) in states {
            for warning in &state.warnings {
                if self.told.insert((route.clone(), warning.clone())) {
                    let routes = news.entry(warning.clone()).or_default();
                    routes.push(route.clone());
                }
            }
        }
        let news = news.into_iter();
        news.map(|(warning, routes)| News { warning, routes })
            .collect()
    }
}

/// Whether all was told about a route.
fn is_told(report: &TopicReport) -> bool {
    let state = report.state.as_ref();
    state.is_ok_and(|state| state.unread.is_none())
}

/// Whether the destination said anything about the route itself.
fn is_answer(report: &TopicReport) -> bool {
    match &report.state {
        Ok(state) => state.unread.is_none(),
        Err(error) => error.kind.fault() != Fault::Destination,
    }
}

impl News {
    /// The routes for people: the first few, and how many more.
    pub(super) fn names(&self) -> String {
        let names = self.routes.iter().take(NAMED).map(Route::as_str);
        let names = names.collect::<Vec<_>>().join(", ");
        match self.routes.len().saturating_sub(NAMED) {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::{ErrorKind, PublishError};

    use super::*;

    fn report(route: &Route, warnings: &[&str]) -> TopicReport {
        TopicReport {
            route: route.clone(),
            state: Ok(TopicState {
                warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
                ..TopicState::default()
            }),
        }
    }

    fn refused(route: &Route, kind: ErrorKind) -> TopicReport {
        TopicReport {
            route: route.clone(),
            state: Err(PublishError::new(kind, "refused")),
        }
    }

    fn routes<const N: usize>() -> [Route; N] {
        std::array::from_fn(|n| Route::new(&format!("topic-{n}")))
    }

    fn met(routes: &[Route], now: Instant) -> Advice {
        let mut advice = Advice::default();
        for route in routes {
            advice.meet(route, now);
        }
        advice
    }

    #[test]
    fn each_route_is_asked_about_once_and_one_question_is_open_at_a_time() {
        let [first, second] = routes();
        let now = Instant::now();
        let mut advice = Advice::default();
        advice.meet(&first, now);
        advice.meet(&first, now);

        assert_eq!(advice.next(now), std::slice::from_ref(&first));
        advice.meet(&second, now);
        assert!(advice.next(now).is_empty(), "the first is being asked");
        advice.answered(&[report(&first, &[])], now);

        assert_eq!(advice.next(now), std::slice::from_ref(&second));
        advice.answered(&[report(&second, &[])], now);
        advice.meet(&first, now);
        assert!(advice.next(now + AGAIN_AFTER).is_empty());
        assert_eq!(advice.due(), None);
    }

    #[test]
    fn a_few_routes_are_asked_about_at_a_time_while_the_destination_answers() {
        let all: [Route; 2 * CHECKED_AT_A_TIME] = routes();
        let now = Instant::now();
        let mut advice = met(&all, now);

        let first = advice.next(now);
        advice.answered(&[refused(&first[0], ErrorKind::UnknownTopic)], now);
        let second = advice.next(now);

        assert_eq!(first.len(), CHECKED_AT_A_TIME);
        assert_eq!(second.len(), CHECKED_AT_A_TIME);
        assert!(second.iter().all(|route| !first.contains(route)));
    }

    #[test]
    fn a_destination_that_does_not_answer_is_asked_about_nothing_for_a_while() {
        let all: [Route; 2 * CHECKED_AT_A_TIME] = routes();
        let now = Instant::now();
        let away = |route: &Route| refused(route, ErrorKind::Unavailable);
        let unread = |route: &Route| TopicReport {
            route: route.clone(),
            state: Ok(TopicState {
                unread: Some("no time".to_owned()),
                ..TopicState::default()
            }),
        };
        let first = met(&all, now).next(now);
        let silences: [Vec<TopicReport>; 3] = [
            Vec::new(),
            first.iter().map(away).collect(),
            first.iter().map(unread).collect(),
        ];
        for silence in silences {
            let mut advice = met(&all, now);
            assert_eq!(advice.next(now), first);

            assert!(advice.answered(&silence, now).is_empty());

            assert!(advice.next(now).is_empty());
            assert_eq!(advice.due(), Some(now + AGAIN_AFTER));
            let second = advice.next(now + AGAIN_AFTER);
            assert!(second.iter().all(|route| !first.contains(route)));
        }
    }

    #[test]
    fn what_was_not_told_is_asked_again_a_while_later() {
        let [missing, silent] = routes();
        let now = Instant::now();
        let mut advice = met(&[missing.clone(), silent.clone()], now);
        advice.next(now);
        let refused = refused(&missing, ErrorKind::UnknownTopic);

        assert!(advice.answered(&[refused], now).is_empty());

        assert_eq!(advice.due(), Some(now + AGAIN_AFTER));
        assert!(advice.next(now).is_empty());
        assert_eq!(advice.next(now + AGAIN_AFTER), [missing, silent]);
        assert_eq!(advice.due(), None);
    }

    #[test]
    fn what_is_never_told_is_asked_more_and_more_seldom_and_puts_off_no_other() {
        let [missing, other] = routes();
        let mut now = Instant::now();
        let mut advice = met(std::slice::from_ref(&missing), now);
        let mut rests = Vec::new();
        for _ in 0..9 {
            advice.next(now);
            advice.answered(&[refused(&missing, ErrorKind::UnknownTopic)], now);
            let due = advice.due().unwrap();
            rests.push((due - now).as_secs() / 60);
            now = due;
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 64, 64]);

        // One that is met meanwhile has a rest of its own, and changes none.
        let before = now - Duration::from_secs(600);
        advice.meet(&other, before);
        assert_eq!(advice.next(before), std::slice::from_ref(&other));
        advice.answered(&[], before);
        let again = before + AGAIN_AFTER;
        assert_eq!(advice.due(), Some(again));
        assert_eq!(advice.next(again), std::slice::from_ref(&other));
        advice.answered(&[report(&other, &[])], again);
        assert_eq!(advice.due(), Some(now));
    }

    #[test]
    fn a_question_that_a_lost_lease_cut_off_is_asked_again() {
        let [route] = routes();
        let now = Instant::now();
        let mut advice = met(std::slice::from_ref(&route), now);
        advice.next(now);

        advice.begin(now);

        assert_eq!(advice.next(now), [route]);
    }

    #[test]
    fn a_warning_is_told_once_with_all_its_routes() {
        let all: [Route; 7] = routes();
        let mut advice = Advice::default();
        let reports: Vec<_> = all.iter().map(|route| report(route, &["memory"])).collect();

        let news = advice.answered(&reports, Instant::now());

        assert_eq!(news.len(), 1);
        assert_eq!(
            news[0].names(),
            "topic-0, topic-1, topic-2, topic-3, topic-4 and 2 more"
        );
        assert!(advice.answered(&reports, Instant::now()).is_empty());
        let other = advice.answered(&[report(&all[0], &["memory", "max_age"])], Instant::now());
        assert_eq!(
            other,
            [News {
                warning: "max_age".to_owned(),
                routes: vec![all[0].clone()]
            }]
        );
    }

    #[test]
    fn no_more_routes_are_asked_about_than_are_kept() {
        let now = Instant::now();
        let mut advice = Advice::default();
        for n in 0..=MOST_ROUTES {
            advice.meet(&Route::new(&n.to_string()), now);
        }

        assert_eq!(advice.untold.len(), MOST_ROUTES);
    }
}
