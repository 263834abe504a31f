//! Topic names, topic filters, and the tree that finds the filters matching a topic (MQTT 5, section 4.7).
//!
//! Invariant: the tree holds a node only while a filter ends at it or below it, so it is as large as the
//! subscriptions in it.

use std::collections::HashMap;

use crate::wire::topic;

/// Longest topic name or filter that is taken, in bytes.
pub const MAX_TOPIC_BYTES: usize = 1024;
/// Most levels of a topic name or filter; it bounds the recursion of the tree.
pub const MAX_LEVELS: usize = 32;

/// Before the group of a shared subscription.
pub const SHARE: &str = "$share/";

/// Whether an MQTT string may stand in a topic: no U+0000, not too long, not too deep.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("topic with U+0000".into());
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(format!("topic of {} bytes; at most {MAX_TOPIC_BYTES} are taken", text.len()));
    }
    if text.bytes().filter(|&byte| byte == b'/').count() >= MAX_LEVELS {
        return Err(format!("topic of more than {MAX_LEVELS} levels"));
    }
    Ok(())
}

/// Whether clients may publish to `topic`.
pub fn check_name(topic: &str) -> Result<(), String> {
    check_text(topic)?;
    if topic.is_empty() {
        return Err("empty topic name".into());
    }
    if topic.contains(['+', '#']) {
        return Err(format!("topic name {topic:?} has a wildcard"));
    }
    if topic.starts_with('$') {
        return Err(format!("topic name {topic:?} starts with $, which is the server's"));
    }
    Ok(())
}

/// A subscription's filter, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The group of a shared subscription.
    pub group: Option<&'a str>,
    /// The filter proper.
    pub filter: &'a str,
}

/// Reads a filter; the error says what is wrong with it.
pub fn parse(text: &str) -> Result<Parsed<'_>, String> {
    check_text(text)?;
    let (group, filter) = match text.strip_prefix(SHARE) {
        None => (None, text),
        Some(rest) => match rest.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => {
                (Some(group), filter)
            }
            _ => return Err(format!("shared subscription {text:?} is not $share/group/filter")),
        },
    };
    if filter.is_empty() {
        return Err("empty topic filter".into());
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wrong = match level {
            "+" => false,
            "#" => levels.peek().is_some(),
            _ => level.contains(['+', '#']),
        };
        if wrong {
            return Err(format!("topic filter {filter:?} has a wildcard where none may be"));
        }
    }
    Ok(Parsed { group, filter })
}

/// Whether `filter` matches the topic made of `levels`.
pub fn matches_levels<'a>(filter: &str, levels: impl IntoIterator<Item = &'a str>) -> bool {
    let mut wanted = filter.split('/');
    for (index, level) in levels.into_iter().enumerate() {
        match wanted.next() {
            Some("#" | "+") if index == 0 && level.starts_with('$') => return false,
            Some("#") => return true,
            Some("+") => {}
            Some(exact) if exact == level => {}
            _ => return false,
        }
    }
    matches!(wanted.next(), None | Some("#"))
}

/// Whether `filter` matches `topic`.
pub fn matches(filter: &str, topic: &str) -> bool {
    matches_levels(filter, topic.split('/'))
}

/// Whether `filter` can match a topic `sensors/{sensor}/{attribute}`.
pub fn reaches_sensors(filter: &str) -> bool {
    reaches(filter, "sensors", 2)
}

/// Whether `filter` can match a topic `rooms/{room}/{sensor}/{attribute}`.
pub fn reaches_rooms(filter: &str) -> bool {
    reaches(filter, "rooms", 3)
}

/// Whether `filter`, as its client writes it, can match a topic that is neither a sensor's nor reserved. (`sensors/#` matches
/// the topic `sensors`, which is nobody's.)
pub fn reaches_ordinary(filter: &str) -> bool {
    let below = |prefix: &&str| filter.strip_prefix(*prefix).is_some_and(|rest| rest != "#");
    ![topic::PREFIX].iter().chain(&topic::RESERVED).any(below)
}

/// Whether `filter` can match a topic of `first` and so many levels behind it.
fn reaches(filter: &str, first: &str, behind: usize) -> bool {
    let mut levels = filter.split('/');
    match levels.next() {
        Some("#") => return true,
        Some(level) if level == "+" || level == first => {}
        _ => return false,
    }
    for _ in 0..behind {
        match levels.next() {
            Some("#") => return true,
            Some(_) => {}
            None => return false,
        }
    }
    matches!(levels.next(), None | Some("#"))
}

/// Values filed under topic filters.
#[derive(Debug)]
pub struct FilterTree<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    plus: Option<Box<Node<T>>>,
    /// Filters that end here.
    here: Vec<T>,
    /// Filters that end here with `#`.
    hash: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { children: HashMap::new(), plus: None, here: Vec::new(), hash: Vec::new() }
    }
}

impl<T> Default for FilterTree<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> FilterTree<T> {
    /// How many values are filed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Files `value` under `filter` (a valid one); what `same` finds there already is replaced and given back.
    pub fn insert(&mut self, filter: &str, value: T, same: impl Fn(&T) -> bool) -> Option<T> {
        let mut node = &mut self.root;
        let mut hash = false;
        for level in filter.split('/') {
            match level {
                "#" => hash = true,
                "+" => node = node.plus.get_or_insert_default(),
                exact => node = node.children.entry(exact.into()).or_default(),
            }
        }
        let list = if hash { &mut node.hash } else { &mut node.here };
        if let Some(old) = list.iter_mut().find(|value| same(value)) {
            return Some(std::mem::replace(old, value));
        }
        list.push(value);
        self.len += 1;
        None
    }

    /// Takes out what `same` finds under `filter`.
    pub fn remove(&mut self, filter: &str, same: impl Fn(&T) -> bool) -> Option<T> {
        let levels: Vec<&str> = filter.split('/').collect();
        let removed = self.root.remove(&levels, &same);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Calls `found` with everything filed under a filter that matches `topic`.
    pub fn matching<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a T)) {
        let rest = Some(topic);
        if topic.starts_with('$') {
            // Wildcards in the first level do not match topics that start with $ (MQTT-4.7.2-1).
            let (level, rest) = split_level(topic);
            if let Some(child) = self.root.children.get(level) {
                child.matching(rest, found);
            }
        } else {
            self.root.matching(rest, found);
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.hash.is_empty()
    }

    fn matching<'a>(&'a self, rest: Option<&str>, found: &mut impl FnMut(&'a T)) {
        // `a/#` matches `a` too, so this comes before the end of the topic is looked at.
        self.hash.iter().for_each(&mut *found);
        let Some(rest) = rest else { return self.here.iter().for_each(found) };
        let (level, rest) = split_level(rest);
        if let Some(child) = self.children.get(level) {
            child.matching(rest, found);
        }
        if let Some(plus) = &self.plus {
            plus.matching(rest, found);
        }
    }

    fn remove(&mut self, levels: &[&str], same: &impl Fn(&T) -> bool) -> Option<T> {
        let take = |list: &mut Vec<T>| {
            let index = list.iter().position(same)?;
            Some(list.swap_remove(index))
        };
        match levels {
            [] => take(&mut self.here),
            ["#", ..] => take(&mut self.hash),
            ["+", rest @ ..] => {
                let plus = self.plus.as_mut()?;
                let removed = plus.remove(rest, same);
                if plus.is_empty() {
                    self.plus = None;
                }
                removed
            }
            [level, rest @ ..] => {
                let child = self.children.get_mut(*level)?;
                let removed = child.remove(rest, same);
                if child.is_empty() {
                    self.children.remove(*level);
                }
                removed
            }
        }
    }
}

fn split_level(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("#", "a/b", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("+/+", "/a", true),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/c/d", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("a/$x/+", "a/$x/y", true),
            ("+/$x", "a/$x", true),
            ("ä/#", "ä/b", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn bad_filters_and_names_are_told_apart() {
        for good in ["#", "+", "a/+/b/#", "/", "+/+/#", "$share/g/a/#", "ä"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a#", "#/a", "a+/b", "++", "$share/g", "$share//a", "$share/g+/a", "$share/g/", "a\0"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in
            ["", "a/+", "#", "$SYS/x", "a\0b", &"x".repeat(MAX_TOPIC_BYTES + 1), &"/".repeat(MAX_LEVELS)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("Ünïcode/ok").is_ok());
    }

    #[test]
    fn filters_that_reach_sensors_are_known() {
        for yes in
            ["#", "sensors/#", "+/#", "+/+/+", "sensors/a/b", "sensors/+/b", "sensors/a/#", "sensors/a/b/#"]
        {
            assert!(reaches_sensors(yes), "{yes}");
        }
        for no in ["sensors", "sensors/a", "+/+", "sensor/a/b", "sensors/a/b/c", "+/+/+/+", "/sensors/#"] {
            assert!(!reaches_sensors(no), "{no}");
        }
    }

    #[test]
    fn filters_that_reach_rooms_are_known() {
        for yes in ["#", "rooms/#", "rooms/r/#", "rooms/r/s/a", "rooms/+/s/+", "+/r/+/a", "rooms/r/s/a/#"] {
            assert!(reaches_rooms(yes), "{yes}");
        }
        for no in ["rooms", "rooms/r", "rooms/r/s", "rooms/r/s/a/b", "+/+/+", "room/#", "sensors/#"] {
            assert!(!reaches_rooms(no), "{no}");
        }
    }

    #[test]
    fn filters_that_reach_ordinary_topics_are_known() {
        for yes in ["#", "+/a", "a/b", "sensors", "sensors/#", "rooms/#", "sensorsx/a", "$share/g/a"] {
            assert!(reaches_ordinary(yes), "{yes}");
        }
        for no in ["sensors/a", "sensors/+/#", "rooms/r/#", "advice/s"] {
            assert!(!reaches_ordinary(no), "{no}");
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$x", "ä"])
    }

    fn filter_level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$x", "+", "+"])
    }

    prop_compose! {
        fn any_filter()(levels in prop::collection::vec(filter_level(), 1..4), hash in any::<bool>()) -> String {
            let mut filter = levels.join("/");
            if hash { filter.push_str("/#"); }
            filter
        }
    }

    proptest! {
        /// The tree finds exactly what comparing with each filter finds, and shrinks to nothing again.
        #[test]
        fn the_tree_agrees_with_matching_one_by_one(
            filters in prop::collection::vec(any_filter(), 0..12),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..8),
        ) {
            let filters: Vec<String> = filters.into_iter().filter(|filter| !filter.is_empty()).collect();
            let mut tree = FilterTree::default();
            for (index, filter) in filters.iter().enumerate() {
                prop_assert!(tree.insert(filter, index, |&other| other == index).is_none());
            }
            for topic in topics {
                let topic = topic.join("/");
                let mut found = Vec::new();
                tree.matching(&topic, &mut |&index| found.push(index));
                found.sort_unstable();
                let expected: Vec<usize> =
                    (0..filters.len()).filter(|&index| matches(&filters[index], &topic)).collect();
                prop_assert_eq!(found, expected, "{}", topic);
            }
            for (index, filter) in filters.iter().enumerate() {
                prop_assert_eq!(tree.remove(filter, |&other| other == index), Some(index));
            }
            prop_assert!(tree.len() == 0 && tree.root.is_empty());
        }

        /// A filter reaches sensors exactly when it matches some topic of three levels below `sensors`.
        #[test]
        fn reaching_sensors_agrees_with_matching(filter in any_filter()) {
            let names = ["", "a", "b", "$x", "ä", "z"];
            let expected = names.iter().any(|sensor| names.iter().any(|attribute| {
                matches_levels(&filter, ["sensors", sensor, attribute])
            }));
            prop_assert_eq!(reaches_sensors(&filter), expected, "{}", filter);
        }

        /// No text makes a parser panic.
        #[test]
        fn any_text_is_judged(text in ".{0,40}") {
            let _ = parse(&text);
            let _ = check_name(&text);
            let _ = matches(&text, &text);
        }
    }
}
