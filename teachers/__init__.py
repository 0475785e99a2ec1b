"""Teachers: classifiers of timm, adapted to log-mel windows of one channel."""
