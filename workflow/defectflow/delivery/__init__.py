"""Verdicts to other systems: a spool on the disk, and behind it a CSV, a webhook, an MQTT broker, OPC UA."""
