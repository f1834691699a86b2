//! What is asked of the samples themselves.

use std::sync::Arc;

use gateway_core::verdict::Reason;

use super::engine::Engine;
use crate::{
    api::{error::Failure, prefix::parse_prefix, samples::SamplesQuery},
    traffic::{Selection, Traffic},
};

impl Engine {
    /// Which samples a query wants, where they are, and that one packet in so many is sampled now (0: none).
    pub(crate) fn select_samples(
        &self,
        asked: &SamplesQuery,
    ) -> Result<(Selection, Arc<Traffic>, u32), Failure> {
        if let Some(service) = asked.service.as_deref().filter(|service| *service != "default") {
            self.need_service(service)?;
        }
        if let Some(interface) = &asked.interface
            && !self.wanted.contains(interface)
        {
            let attached: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
            return Err(Failure::not_found(format!("weir is not attached to {interface}"))
                .hint(format!("it is attached to {}", attached.join(", "))));
        }
        let source = asked.source.as_deref().map(parse_prefix).transpose();
        let reasons = asked.reason.as_deref().unwrap_or_default();
        let reasons = reasons.split(',').filter(|name| !name.is_empty()).map(|name| {
            let found = Reason::ALL.iter().find(|reason| reason.name() == name);
            found
                .copied()
                .ok_or_else(|| Failure::invalid(format!("there is no reason {name}")))
        });
        let selection = Selection {
            dropped: asked.dropped.unwrap_or(false),
            reasons: reasons.collect::<Result<_, _>>()?,
            service: asked.service.clone(),
            source: source.map_err(Failure::invalid)?,
            interface: asked.interface.clone(),
        };
        Ok((selection, self.traffic(), self.one_in()))
    }
}
