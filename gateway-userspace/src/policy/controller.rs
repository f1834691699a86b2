//! Reading `[controller]`: what happens without a controller, and who may talk to it.

use super::{
    bounds,
    model::{Controller, OnLoss},
    units,
    walk::{Item, Section, Sink},
};

/// Reads `[controller]`, or its defaults.
pub(super) fn controller(root: &Section<'_>, sink: &mut Sink<'_>) -> Controller {
    let mut controller = Controller::default();
    let Some(section) = root.section("controller", sink) else {
        return controller;
    };
    section.check_keys(&["on_loss", "after", "socket_group"], &[], sink);
    if let Some(item) = section.get("on_loss") {
        let words = [("hold", OnLoss::Hold), ("open", OnLoss::Open)];
        controller.on_loss = item.choice(sink, &words).unwrap_or_default();
    }
    if let Some(item) = section.get("after") {
        controller.after_seconds = after(&item, sink).unwrap_or(controller.after_seconds);
        if controller.on_loss == OnLoss::Hold {
            sink.warn(&item, "has no effect without on_loss = \"open\"");
        }
    }
    if let Some(item) = section.get("socket_group") {
        controller.socket_group = group(&item, sink);
    }
    controller
}

fn after(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<u64> {
    let bounds = bounds::CONTROLLER_AFTER;
    let (least, most) = (
        units::format_seconds(*bounds.start()),
        units::format_seconds(*bounds.end()),
    );
    let range = format!("a duration from {least:?} to {most:?}");
    item.quantity(
        sink,
        units::parse_seconds,
        "a duration such as \"5m\"",
        &bounds,
        &range,
    )
}

/// A group's name. Whether there is such a group is the business of the machine that the policy runs on.
fn group(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<String> {
    let expected = "the name of a group, such as \"weir\"";
    let name = item.string(sink, expected)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let number = name.bytes().all(|b| b.is_ascii_digit());
    if name.is_empty()
        || name.len() > bounds::MAX_GROUP
        || number
        || name.starts_with('-')
        || !name.bytes().all(plain)
    {
        let most = bounds::MAX_GROUP;
        sink.bad(
            item,
            format!(
                "expected {expected}: 1 to {most} letters, digits, dots, hyphens or underscores, and no number"
            ),
        );
        return None;
    }
    Some(name.to_owned())
}
