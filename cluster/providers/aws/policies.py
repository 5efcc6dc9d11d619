"""What machines of a cluster may do on AWS, and who may see the bucket: as little as they need."""

from typing import Any

from cluster.providers.aws.session import Mine

ROLES = ("head", "worker")
VERSION = "2012-10-17"  # of the language that policies are written in
# So that commands can be sent to a machine without opening a port. AWS's ready-made policy for it
# would also let every machine read all parameters.
AGENT = (
    "ssm:UpdateInstanceInformation",
    *(
        f"ssmmessages:{verb}{kind}Channel"
        for verb in ("Create", "Open")
        for kind in ("Control", "Data")
    ),
    *(f"ec2messages:{verb}" for verb in ("AcknowledgeMessage", "DeleteMessage", "FailMessage")),
    *(f"ec2messages:{verb}" for verb in ("GetEndpoint", "GetMessages", "SendReply")),
)


def trust() -> dict[str, Any]:
    """Who may take a role: machines, and nobody else."""
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }


def role_policy(
    role: str, mine: Mine, *, partition: str, account: str, bucket: str
) -> dict[str, Any]:
    """The rights of heads or workers of an owner.

    Workers fetch code, write logs and read one password. Heads also read where results go, and end
    what belongs to a cluster; no machine may end another, or become anybody else.
    """
    place = f"{mine.region}:{account}"
    objects = f"arn:{partition}:s3:::{bucket}"
    parameters = f"arn:{partition}:ssm:{place}:parameter"
    statements = [
        _allow(["s3:GetObject"], f"{objects}/code/{mine.owner}/*"),
        _allow(["s3:PutObject"], f"{objects}/runs/{mine.owner}/*"),
        _allow(["ssm:GetParameter"], f"{parameters}{mine.password}"),
        _allow(list(AGENT), "*"),
    ]
    if role == "head":
        clusters = f"{parameters}/evo/{mine.owner}/clusters/*"
        groups = f"arn:{partition}:autoscaling:{place}:autoScalingGroup:*"
        end_groups = ["autoscaling:DeleteAutoScalingGroup"]
        templates = f"arn:{partition}:ec2:{place}:launch-template/*"
        own = {"StringEquals": {"aws:ResourceTag/evo:owner": mine.owner}}
        statements += [
            _allow(["s3:DeleteObject"], f"{objects}/code/{mine.owner}/*"),
            _allow(["ssm:GetParameter", "ssm:DeleteParameter"], clusters),
            _allow(end_groups, f"{groups}:autoScalingGroupName/evo-{mine.owner}-*"),
            {**_allow(["ec2:DeleteLaunchTemplate"], templates), "Condition": own},
        ]
    return {"Version": VERSION, "Statement": statements}


def bucket_policy(partition: str, bucket: str) -> dict[str, Any]:
    """Nobody talks to the bucket in the clear; who may talk to it at all, roles and users say."""
    arn = f"arn:{partition}:s3:::{bucket}"
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Sid": "OnlyWithTLS",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}
