"""The commands: qat-train, qat-check, qat-export, qat-verify and qat-report."""
