//! What devices speak to Sensorium.
