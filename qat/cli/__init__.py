"""The commands: qat-train, qat-check, qat-export, qat-verify, qat-report and qat-generate."""
