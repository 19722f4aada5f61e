DROP TABLE address_collisions;
DROP TABLE backfills;
DROP TABLE trusted_devices;

