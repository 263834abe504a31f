//! What browsers see of Sensorium.
