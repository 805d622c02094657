"""One page about one or several runs, to be looked at: ``pscx report``. See :func:`pscx.report.page.page`."""
