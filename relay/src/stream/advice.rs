//! Decides which routes a destination is asked about beside publishing, and what of its answers is news. Pure: the caller brings
//! the clock.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use onceward_core::{Route, TopicReport, TopicState};

/// The most routes that one stream asks about; `onceward doctor` asks about all.
const MOST_ROUTES: usize = 1_000;

/// How long a route rests whose state was not told, the first time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How often that rest is doubled at most: about an hour.
const DOUBLED: u32 = 6;

/// The most routes that are named together.
const NAMED: usize = 5;

/// What a stream knows of the settings of its destination.
#[derive(Debug, Default)]
pub(super) struct Advice {
    met: HashSet<Route>,
    /// Met, and not asked about yet.
    new: Vec<Route>,
    /// Being asked about.
    asking: Vec<Route>,
    /// Asked about in vain, and when they are asked about again.
    untold: Vec<Route>,
    again_at: Option<Instant>,
    /// How often in a row something was not told.
    in_vain: u32,
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
    pub(super) fn begin(&mut self) {
        self.new.append(&mut self.asking);
    }

    /// Takes note of a route that is published to.
    pub(super) fn meet(&mut self, route: &Route) {
        if self.met.len() < MOST_ROUTES && self.met.insert(route.clone()) {
            self.new.push(route.clone());
        }
    }

    /// The routes to ask about now: none while others are being asked about.
    pub(super) fn next(&mut self, now: Instant) -> Vec<Route> {
        if self.asking.is_empty() {
            self.asking.append(&mut self.new);
            if self.again_at.is_some_and(|at| at <= now) {
                self.again_at = None;
                self.asking.append(&mut self.untold);
            }
            return self.asking.clone();
        }
        Vec::new()
    }

    /// When routes are asked about again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again_at.filter(|_| self.asking.is_empty())
    }

    /// The destination was asked, and said this.
    pub(super) fn answered(&mut self, reports: &[TopicReport], now: Instant) -> Vec<News> {
        let told = reports.iter().filter(|report| report.state.is_ok());
        let told: HashSet<&Route> = told.map(|report| &report.route).collect();
        let asked = std::mem::take(&mut self.asking).into_iter();
        self.untold
            .extend(asked.filter(|route| !told.contains(route)));
        if self.untold.is_empty() {
            self.in_vain = 0;
        } else if self.again_at.is_none() {
            self.again_at = Some(now + AGAIN_AFTER * 2_u32.pow(self.in_vain.min(DOUBLED)));
            self.in_vain = self.in_vain.saturating_add(1);
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
                max_message: None,
                warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
            }),
        }
    }

    fn routes<const N: usize>() -> [Route; N] {
        std::array::from_fn(|n| Route::new(&format!("topic-{n}")))
    }

    #[test]
    fn each_route_is_asked_about_once_and_one_question_is_open_at_a_time() {
        let [first, second] = routes();
        let now = Instant::now();
        let mut advice = Advice::default();
        advice.meet(&first);
        advice.meet(&first);

        assert_eq!(advice.next(now), std::slice::from_ref(&first));
        advice.meet(&second);
        assert!(advice.next(now).is_empty(), "the first is being asked");
        advice.answered(&[report(&first, &[])], now);

        assert_eq!(advice.next(now), std::slice::from_ref(&second));
        advice.answered(&[report(&second, &[])], now);
        advice.meet(&first);
        assert!(advice.next(now + AGAIN_AFTER).is_empty());
        assert_eq!(advice.due(), None);
    }

    #[test]
    fn what_was_not_told_is_asked_again_a_while_later() {
        let [missing, silent] = routes();
        let now = Instant::now();
        let mut advice = Advice::default();
        advice.meet(&missing);
        advice.meet(&silent);
        advice.next(now);
        let refused = TopicReport {
            route: missing.clone(),
            state: Err(PublishError::new(ErrorKind::UnknownTopic, "no such topic")),
        };

        assert!(advice.answered(&[refused], now).is_empty());

        assert_eq!(advice.due(), Some(now + AGAIN_AFTER));
        assert!(advice.next(now).is_empty());
        assert_eq!(advice.next(now + AGAIN_AFTER), [missing, silent]);
        assert_eq!(advice.due(), None);
    }

    #[test]
    fn what_is_never_told_is_asked_more_and_more_seldom() {
        let [silent, other] = routes();
        let mut now = Instant::now();
        let mut advice = Advice::default();
        advice.meet(&silent);
        let mut rests = Vec::new();
        for _ in 0..9 {
            advice.next(now);
            advice.answered(&[], now);
            let due = advice.due().unwrap();
            rests.push((due - now).as_secs() / 60);
            now = due;
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 64, 64]);

        // One that is met meanwhile puts nothing off.
        advice.meet(&other);
        let before = now - Duration::from_secs(1);
        assert_eq!(advice.next(before), std::slice::from_ref(&other));
        advice.answered(&[report(&other, &[])], before);
        assert_eq!(advice.due(), Some(now));
    }

    #[test]
    fn a_question_that_a_lost_lease_cut_off_is_asked_again() {
        let [route] = routes();
        let now = Instant::now();
        let mut advice = Advice::default();
        advice.meet(&route);
        advice.next(now);

        advice.begin();

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
        let mut advice = Advice::default();
        for n in 0..=MOST_ROUTES {
            advice.meet(&Route::new(&n.to_string()));
        }

        assert_eq!(advice.next(Instant::now()).len(), MOST_ROUTES);
    }
}
