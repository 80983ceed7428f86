"""The checks: functions from a subject to findings, which read files but change and ask nothing."""
