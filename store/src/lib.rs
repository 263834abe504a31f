//! What Sensorium keeps and how it is replicated. It knows no protocol of devices or browsers.

pub mod model;

pub use model::ids::{
    Attribute, IdError, NodeId, NodeName, Origin, PARTITIONS, Partition, SensorId, SeriesId,
};
pub use model::kind::Kind;
pub use model::time::SampleTime;
pub use model::value::{Shape, ValueRef, Values};
