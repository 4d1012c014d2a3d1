//! Short forms to create metrics, and to encode figures that a scrape reads from their owners.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry};

/// Counters by outcome.
pub(crate) type Outcomes = Family<OutcomeLabels, Counter>;

/// The label of one counter of [`Outcomes`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    pub(crate) outcome: &'static str,
}

/// Defines a group of metrics and its function `register`. A line has the field, its type, and the name and help of the
/// metric. For [`Outcomes`], it also has the outcomes: all of them are shown from the start, so that the first one of a kind
/// is an increase.
macro_rules! metrics {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $group:ident {
            $($access:vis $field:ident: $kind:ty = $name:literal, $help:literal $(, $outcomes:expr)?;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default)]
        $visibility struct $group {
            $(#[doc = $help] $access $field: $kind,)*
        }

        impl $group {
            /// New metrics of `registry`.
            $visibility fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
                let metrics = Self {
                    $($field: $crate::telemetry::metric::registered(registry, $name, $help),)*
                };
                $($(for outcome in $outcomes {
                    drop(metrics.$field.get_or_create(&$crate::telemetry::metric::OutcomeLabels { outcome }));
                })?)*
                metrics
            }
        }
    };
}
pub(crate) use metrics;

/// A new metric of `registry`.
pub(crate) fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Encodes a counter without labels.
pub(crate) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: u64,
) -> fmt::Result {
    let counter = ConstCounter::new(count);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

/// Encodes a gauge without labels.
pub(crate) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Encodes the samples of one metric, each with its labels.
pub(crate) fn family<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, M::TYPE)?;
    samples.into_iter().try_for_each(|(labels, sample)| sample.encode(family.encode_family(&labels)?))
}
