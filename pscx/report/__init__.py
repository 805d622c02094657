"""HTML reports about one or several runs: ``pscx report``. See :func:`pscx.report.page.page`."""
