"""Jobs in, outcomes out: receive -> batch -> predict -> publish -> ack."""
